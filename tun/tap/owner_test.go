package tap

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
)

// attach attaches another queue to a TAP.
func attach(name string, flags uint16) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
}

// TestQueuesAreReserved has a process of the same user without CAP_NET_ADMIN attach a
// queue to a TAP. In a user namespace the TAP stays its user's, and only the number of
// queues keeps others out.
func TestQueuesAreReserved(t *testing.T) {
	refusals := map[int]error{1: unix.EPERM, 2: unix.EPERM}
	if ids, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Fields(string(ids))[2] != "4294967295" {
		refusals = map[int]error{1: unix.EBUSY, 2: nil}
	}
	for queues, refusal := range refusals {
		for _, offload := range []bool{false, true} {
			t.Run(fmt.Sprintf("queues=%d/offload=%v", queues, offload), func(t *testing.T) {
				lanetest.Do(t, lanetest.Namespace(t), func() error {
					tap, err := Open(tun.Config{Name: "fw", MTU: 1500, Queues: queues, Offload: offload})
					if err != nil {
						return err
					}
					var flags uint16 = unix.IFF_MULTI_QUEUE
					if queues == 1 {
						flags = 0
					}
					if offload {
						flags |= unix.IFF_VNET_HDR | unix.IFF_NAPI
					}
					if err := dropNetAdmin(); err != nil {
						return err
					}
					if err := attach("fw", flags); !errors.Is(err, refusal) {
						t.Errorf("got %v, want %v", err, refusal)
					}
					return tap.Close()
				})
			})
		}
	}
}

// TestReserveFindsForeignQueue has another process attach a queue before the TAP is
// reserved.
func TestReserveFindsForeignQueue(t *testing.T) {
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		tap, err := Open(tun.Config{Name: "fw", MTU: 1500, Queues: 2})
		if err != nil {
			return err
		}
		defer tap.Close()
		if err := tap.reserve(); err != nil {
			return err
		}
		tap.config.Queues = 1
		const want = "it has 2 queues, not 1: another process has attached to it"
		if err := tap.reserve(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		return nil
	})
}
