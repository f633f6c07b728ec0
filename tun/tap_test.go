package tun

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestTAPLives looks at a device while it is open, and for it afterwards.
func TestTAPLives(t *testing.T) {
	for _, c := range []TAPConfig{
		{Name: "fw-in", MTU: 1400, Queues: 1},
		{Name: "fw-in", MTU: 65521, Queues: 3},
		{Name: "fw-in", MTU: 9000, Queues: 3, Offload: true},
	} {
		space := namespace(t)
		do(t, space, func() error {
			tap, err := OpenTAP(c)
			if err != nil {
				return err
			}
			link, err := netlink.LinkByName(c.Name)
			if err != nil {
				return err
			}
			if a := link.Attrs(); a.MTU != c.MTU || a.RawFlags&unix.IFF_UP == 0 || link.(*netlink.Tuntap).Queues != 0 && link.(*netlink.Tuntap).Queues != tap.Queues {
				t.Errorf("%+v: %+v", c, link)
			}
			if n := link.Attrs().TxQLen; n != queueLength {
				t.Errorf("its queue holds %d frames", n)
			}
			if off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + c.Name + "/disable_ipv6"); err == nil && string(off) != "1\n" {
				t.Errorf("it speaks IPv6")
			}
			if err := errors.Join(tap.Close(), tap.Close()); err != nil {
				t.Error(err)
			}
			if _, err := netlink.LinkByName(c.Name); !gone(err) {
				t.Errorf("%+v is still there: %v", c, err)
			}
			return nil
		})
	}
}

func TestOpenTAPHeld(t *testing.T) {
	do(t, namespace(t), func() error {
		held, err := OpenTAP(TAPConfig{Name: "taken", MTU: 1500, Queues: 1})
		if err != nil {
			return err
		}
		const want = `open tap "taken": device exists and is a process's, as another fragwall's: end that or choose another name`
		if _, err := OpenTAP(held.TAPConfig); !errors.Is(err, ErrExists) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		return held.Close()
	})
}

func TestOpenTAPFails(t *testing.T) {
	tests := []struct {
		name    string
		c       TAPConfig
		prepare func() error
		want    string
	}{
		{"device exists", TAPConfig{Name: "taken", MTU: 1500}, func() error { return addVeth("taken", "other") },
			`open tap "taken": device exists and is not fragwall's: remove it or choose another name`},
		{"mtu too large", TAPConfig{Name: "fw", MTU: 70000}, nil, `open tap "fw": set mtu 70000: invalid argument`},
		{"no right", TAPConfig{Name: "fw", MTU: 1500}, dropNetAdmin, `CAP_NET_ADMIN is missing; run as root or grant it`},
	}
	for _, tt := range tests {
		for _, offload := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/offload=%v", tt.name, offload), func(t *testing.T) {
				space := namespace(t)
				tt.c.Queues, tt.c.Offload = 2, offload
				before := descriptors(t)
				do(t, space, func() error {
					if tt.prepare != nil {
						if err := tt.prepare(); err != nil {
							return err
						}
					}
					_, err := OpenTAP(tt.c)
					if err == nil || !strings.Contains(err.Error(), tt.want) {
						t.Errorf("got %v, want %s", err, tt.want)
					}
					if _, err := netlink.LinkByName("fw"); !gone(err) {
						t.Errorf("the device is there: %v", err)
					}
					return nil
				})
				// Water leaves a descriptor open where the kernel denies the device.
				if n := descriptors(t); n != before && (offload || tt.name != "no right") {
					t.Errorf("%d descriptors, %d before", n, before)
				}
			})
		}
	}
}

func addVeth(name, peer string) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: peer})
}

// dropNetAdmin takes CAP_NET_ADMIN from the calling thread.
func dropNetAdmin() error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&h, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	return unix.Capset(&h, &data[0])
}

// TestRingDenied denies the calls of io_uring as sandboxes and kernels do. The
// error must say why, and the plain lanes must serve.
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
			r := tapRig(t, TAPConfig{MTU: 1500, Queues: 2}, Plain)
			before := descriptors(t)
			do(t, r.space, func() error {
				if err := deny(tt.call, tt.errno); err != nil {
					return err
				}
				if _, err := Ring(r.from, r.to); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
					t.Errorf("got %v, want %s", err, tt.want)
				}
				return nil
			})
			if n := descriptors(t); n != before {
				t.Errorf("%d descriptors, %d before", n, before)
			}
			stop := r.forward(unchanged)
			r.through(t, [][]byte{frame(1, 60)})
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// deny has a system call fail on the calling thread, for good (seccomp(2)).
func deny(call uint32, errno unix.Errno) error {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		result = unix.BPF_RET | unix.BPF_K
	)
	filter := []unix.SockFilter{
		{Code: load, K: 0}, // struct seccomp_data.nr
		{Code: equal, K: call, Jf: 1},
		{Code: result, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: result, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	return nil
}
