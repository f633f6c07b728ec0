package netdev

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrMissing is wrapped where there is no device.
var ErrMissing = errors.New("no such interface")

// ErrExists is wrapped where a device of the name is there already.
var ErrExists = errors.New("device exists")

// Gone reports whether an error says that a device, or what belonged to one, is not
// there any more.
func Gone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}

// Missing returns [ErrMissing] for an error that says that there is no such device,
// and other errors as they are.
func Missing(err error) error {
	if err != nil && Gone(err) {
		return ErrMissing
	}
	return err
}

// Link is how a device is.
type Link struct {
	Index   int
	Name    string
	Up      bool   // it is up by its administrator's will
	Carrier bool   // it is up, and has a carrier
	MTU     int    // bytes
	Speed   uint64 // bit/s; 0: its driver does not say
	// Relays says that the device hands frames that are to be cut into fragments on to
	// others, as a bridge does. It claims to do what any of them might do
	// (NETIF_F_GSO_MASK), also to cut them itself, and of a TAP's frame the kernel then
	// makes fewer and larger fragments, each of which is cut again in front of the next
	// device, with another M flag and UDP checksum (net/core/gso.c, __skb_gso_segment;
	// net/core/skbuff.c, skb_segment).
	Relays bool
}

// relays are the types of the devices that relay (net/bridge/br_device.c,
// net/hsr/hsr_device.c).
var relays = []string{"bridge", "hsr"}

// ReadLink returns how a device is, by its index.
func ReadLink(index int) (Link, error) {
	return readLink(netlink.LinkByIndex(index))
}

// FindLink returns how a device is, by its name.
func FindLink(name string) (Link, error) {
	l, err := readLink(netlink.LinkByName(name))
	if err != nil {
		err = fmt.Errorf("interface %q: %w", name, err)
	}
	return l, err
}

func readLink(link netlink.Link, err error) (Link, error) {
	if err != nil {
		return Link{}, Missing(err)
	}
	a := link.Attrs()
	up := a.Flags&net.FlagUp != 0
	return Link{
		Index: a.Index, Name: a.Name, Up: up, Carrier: up && a.RawFlags&unix.IFF_LOWER_UP != 0, MTU: a.MTU, Speed: linkSpeed(a.Name),
		Relays: slices.Contains(relays, link.Type()),
	}, nil
}

// SetLink brings a device up or down.
func SetLink(index int, up bool) error {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	set, what := netlink.LinkSetDown, "down"
	if up {
		set, what = netlink.LinkSetUp, "up"
	}
	if err := set(link); err != nil {
		return fmt.Errorf("bring interface %d %s: %w", index, what, err)
	}
	return nil
}

// releaseTime is how long the kernel may take to close what a killed process
// had open: an io_uring goes in the background, and the TAP with it.
const releaseTime = 2 * time.Second

// Vacant returns the error that wraps [ErrExists] where there is a device of
// a name. It waits for a TAP that goes with the process that made it,
// as one that was killed just now.
func Vacant(name string) error {
	for deadline := time.Now().Add(releaseTime); ; time.Sleep(10 * time.Millisecond) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return nil
		}
		tap, ok := link.(*netlink.Tuntap)
		switch {
		case !ok || !tap.NonPersist:
			return fmt.Errorf("open tap %q: %w and does not belong to fragwall: remove it or choose another name", name, ErrExists)
		case time.Now().After(deadline):
			return fmt.Errorf("open tap %q: %w and another process uses it, perhaps another fragwall: end that process or choose another name", name, ErrExists)
		}
	}
}

// SetMTU changes the MTU of a device, in bytes.
func SetMTU(index, mtu int) error {
	return netlink.LinkSetMTU(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, mtu)
}
