package tap

import (
	"fmt"
	"math"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// unusedID is a user and a group that no process has. A process that may open /dev/net/tun can
// attach its own queue to a TAP of several queues if it has the TAP's user and group, or the
// TAP has none, or it has CAP_NET_ADMIN (tun_not_capable in drivers/net/tun.c). Through that
// queue it could send frames past the rules.
const unusedID = math.MaxUint32 - 1

// reserve denies the TAP to other processes without CAP_NET_ADMIN, and checks that none
// attached a queue before. In a user namespace that does not map unusedID, the TAP keeps this
// process's user.
func (t *TAP) reserve() error {
	for _, request := range []uint{unix.TUNSETOWNER, unix.TUNSETGROUP} {
		if err := unix.IoctlSetInt(t.queues[0], request, unusedID); err != nil && err != unix.EINVAL {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	link, err := netlink.LinkByName(t.config.Name)
	if err != nil {
		return err
	}
	// Linux before 4.17 does not report the number of queues.
	device, ok := link.(*netlink.Tuntap)
	if n := device.Queues + device.DisabledQueues; ok && n > t.config.Queues {
		return fmt.Errorf("it has %d queues instead of %d: another process has attached a queue", n, t.config.Queues)
	}
	return nil
}

// ownID returns the user and group of a TAP until [TAP.reserve].
func ownID() (user, group uint32) { return uint32(os.Getuid()), uint32(os.Getgid()) }
