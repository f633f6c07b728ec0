package device

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
)

// TestRingDenied makes the system calls of io_uring fail as in sandboxes and on kernels that lack
// it. The error must give the cause, and the lanes without io_uring must forward frames.
func TestRingDenied(t *testing.T) {
	for _, tt := range []struct {
		call  uint32
		errno unix.Errno
		want  string
	}{
		{unix.SYS_IO_URING_SETUP, unix.EPERM, "io_uring_setup: operation not permitted: by the sysctl kernel.io_uring_disabled, a seccomp profile or a security module"},
		{unix.SYS_IO_URING_SETUP, unix.ENOSYS, "io_uring_setup: function not implemented: the kernel is built without it, or a seccomp profile hides it"},
		{unix.SYS_IO_URING_SETUP, unix.EINVAL, "io_uring_setup: invalid argument: the kernel is older than 6.7"},
		{unix.SYS_IO_URING_SETUP, unix.ENOMEM, "io_uring_setup: cannot allocate memory: out of memory, or of what RLIMIT_MEMLOCK lets this user lock"},
		{unix.SYS_IO_URING_REGISTER, unix.EPERM, "io_uring_register 8: operation not permitted"},
	} {
		t.Run(fmt.Sprint(tt.call, tt.errno), func(t *testing.T) {
			r := lanetest.Open(t, Open, tun.Config{MTU: 1500, Queues: 2})
			for _, l := range r.Lanes {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
			before := lanetest.Descriptors(t)
			lanetest.Do(t, r.Space, func() (err error) {
				if err := lanetest.Deny(tt.call, tt.errno); err != nil {
					return err
				}
				r.Lanes, err = r.From.Lanes(r.To)
				return err
			})
			// Each lane without io_uring has an eventfd.
			if n := lanetest.Descriptors(t); n != before+len(r.Lanes) {
				t.Errorf("%d descriptors, %d before", n, before)
			}
			missing := r.From.Fallbacks()
			if len(missing) != 1 || missing[0].Level != slog.LevelWarn || !strings.HasPrefix(missing[0].Err.Error(), tt.want) {
				t.Errorf("got %v, want %s", missing, tt.want)
			}
			stop := r.Forward(lanetest.Unchanged)
			r.Through(t, [][]byte{lanetest.Number(1, 60)})
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRing checks that the lanes use io_uring where it is available.
func TestRing(t *testing.T) {
	r := lanetest.Open(t, Open, tun.Config{MTU: 1500})
	for _, f := range r.From.Fallbacks() {
		if strings.Contains(f.Message, "io_uring") {
			lanetest.Require(t, f.Err)
		}
	}
}
