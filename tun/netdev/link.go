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

// ErrMissing is wrapped if a device does not exist.
var ErrMissing = errors.New("no such interface")

// ErrExists is wrapped if a device with that name exists.
var ErrExists = errors.New("device exists")

// Gone reports whether an error says that a device, or something that belonged to one, no
// longer exists.
func Gone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}

// Missing returns [ErrMissing] for an error that says that a device does not exist, and
// other errors unchanged.
func Missing(err error) error {
	if err != nil && Gone(err) {
		return ErrMissing
	}
	return err
}

// Link is the state of a device.
type Link struct {
	Index   int
	Name    string
	Up      bool   // set up by the administrator
	Carrier bool   // it is up, and has a carrier
	MTU     int    // bytes
	Speed   uint64 // bit/s; 0: the driver does not report it
	// Relays reports whether the device passes frames that must be segmented on to other
	// devices, as a bridge does. Such a device claims every offload that any of its ports
	// might have (NETIF_F_GSO_MASK), including fragmentation. From a TAP's frame the
	// kernel then makes fewer and larger fragments, each of which is fragmented again
	// before the next device, with another M flag and UDP checksum (net/core/gso.c,
	// __skb_gso_segment; net/core/skbuff.c, skb_segment).
	Relays bool
}

// relays are the types of such devices (net/bridge/br_device.c, net/hsr/hsr_device.c).
var relays = []string{"bridge", "hsr"}

// ReadLink returns the state of a device, by its index.
func ReadLink(index int) (Link, error) {
	return readLink(netlink.LinkByIndex(index))
}

// FindLink returns the state of a device, by its name.
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

// SetLink sets a device up or down.
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

// releaseTime is how long the kernel may take to close the descriptors of a killed
// process: it releases an io_uring, and with it the TAP, in the background.
const releaseTime = 2 * time.Second

// Vacant returns an error that wraps [ErrExists] if a device with that name exists. It
// waits for the TAP of a process that was just killed.
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

// SetMTU sets the MTU of a device, in bytes.
func SetMTU(index, mtu int) error {
	return netlink.LinkSetMTU(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, mtu)
}
