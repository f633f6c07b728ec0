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

// openUnsteered opens a TAP's queues without steering, which would need more rights.
func openUnsteered(c tun.Config) (*TAP, error) {
	tap := &TAP{config: c}
	files, err := tap.openQueues()
	for _, f := range files {
		fd, detachErr := detach(f)
		err = errors.Join(err, detachErr)
		tap.queues = append(tap.queues, fd)
	}
	return tap, err
}

// everyID reports whether the user namespace maps every user, as the initial one does.
func everyID() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Fields(string(ids))[2] == "4294967295"
}

// TestQueuesAreReserved tries to attach a queue to a TAP as the same user without CAP_NET_ADMIN.
// The kernel must refuse it. In a user namespace the TAP keeps its user, so the kernel refuses it
// only if the TAP has a single queue.
func TestQueuesAreReserved(t *testing.T) {
	refusals := map[int]error{1: unix.EPERM, 2: unix.EPERM}
	if !everyID() {
		refusals = map[int]error{1: unix.EBUSY, 2: nil}
	}
	for queues, refusal := range refusals {
		for _, offload := range []bool{false, true} {
			t.Run(fmt.Sprintf("queues=%d/offload=%v", queues, offload), func(t *testing.T) {
				lanetest.Do(t, lanetest.Namespace(t), func() error {
					tap, err := openUnsteered(tun.Config{Name: "fw", MTU: 1500, Queues: queues, Offload: offload})
					if err != nil {
						return errors.Join(err, tap.Close())
					}
					if err := errors.Join(tap.reserve(), dropNetAdmin()); err != nil {
						return err
					}
					var flags uint16
					if queues > 1 {
						flags |= unix.IFF_MULTI_QUEUE
					}
					if offload {
						flags |= unix.IFF_VNET_HDR
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

// TestReserveFindsForeignQueue checks that reserve finds a queue that another process attached
// before.
func TestReserveFindsForeignQueue(t *testing.T) {
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		tap, err := openUnsteered(tun.Config{Name: "fw", MTU: 1500, Queues: 2})
		if err != nil {
			return err
		}
		defer tap.Close()
		tap.config.Queues = 1
		const want = "it has 2 queues instead of 1: another process has attached a queue"
		if err := tap.reserve(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		return nil
	})
}
