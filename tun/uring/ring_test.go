package uring

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/tun/internal/lanetest"
)

// TestRingRestricted submits operations to an enabled ring that a lane does not need. The kernel
// must refuse each before it checks anything else.
func TestRingRestricted(t *testing.T) {
	r, err := newRing(8, 16)
	if err != nil {
		if os.Getenv("CI") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	defer r.close()
	needed := map[uint8]bool{}
	for _, a := range allowed {
		if a.about == restrictOp {
			needed[a.what] = true
		}
	}
	done := make(chan struct{})
	go func() { // the ring belongs to the thread of this goroutine
		defer close(done)
		if err := r.register(registerEnableRings, nil, 0); err != nil {
			t.Error(err)
			return
		}
		try := func(opcode, flags uint8) {
			s := r.next()
			s.opcode, s.flags, s.fd, s.addr = opcode, flags, -1, 1
			if err := r.enter(1); err != nil {
				t.Errorf("operation %d: %v", opcode, err)
			}
			if c, ok := r.pop(); !ok || c.err() != unix.EACCES {
				t.Errorf("operation %d with flags %#x: %v, %v", opcode, flags, c.err(), ok)
			}
		}
		for opcode := range uint8(opReadMultishot) { // all operations that every kernel with io_uring has
			if !needed[opcode] {
				try(opcode, 0)
			}
		}
		const async = 1 << 4 // IOSQE_ASYNC
		try(opWrite, async)
		for op := range uintptr(registerBufferRing) {
			if op == unregisterFiles {
				continue
			}
			if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), op, 0, 0, 0, 0); errno != unix.EACCES {
				t.Errorf("register operation %d: %v", op, errno)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(lanetest.Timeout):
		t.Fatal("stuck")
	}
}
