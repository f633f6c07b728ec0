package tun

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrMissing is wrapped where there is no device.
var ErrMissing = errors.New("no such interface")

// Link is how a device is.
type Link struct {
	Index   int
	Name    string
	Up      bool   // it is up by its administrator's will
	Carrier bool   // it is up, and has a carrier
	MTU     int    // bytes
	Speed   uint64 // bit/s; 0: its driver does not say
}

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
		if gone(err) {
			err = ErrMissing
		}
		return Link{}, err
	}
	a := link.Attrs()
	up := a.Flags&net.FlagUp != 0
	return Link{
		Index: a.Index, Name: a.Name, Up: up, Carrier: up && a.RawFlags&unix.IFF_LOWER_UP != 0, MTU: a.MTU, Speed: linkSpeed(a.Name),
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

// NICMTU returns the MTU in bytes that a NIC has of its own: where a killed
// fragwall left it joined, the one from before.
func NICMTU(name string) (int, error) {
	nic, before, _, err := findJoined(name)
	switch {
	case nic == nil:
		return 0, err
	case err == nil && before.mtu != 0:
		return before.mtu, nil
	}
	return nic.Attrs().MTU, nil // also of one that a running fragwall has
}

// Index is the TAP's.
func (t *TAP) Index() int { return t.index }

// SetMTU changes the MTU, in bytes. Without offload the lanes have room for
// frames of the one that the TAP was opened with, and no longer ones.
func (t *TAP) SetMTU(mtu int) error {
	if mtu > t.MTU && !t.Offload {
		return fmt.Errorf("tap %q: set mtu %d: without offload it was opened for %d at most: start again", t.Name, mtu, t.MTU)
	}
	if err := netlink.LinkSetMTU(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: t.index}}, mtu); err != nil {
		return fmt.Errorf("tap %q: set mtu %d: %w", t.Name, mtu, err)
	}
	return nil
}

// SetCarrier has the TAP have a carrier, or none (Linux 5.0).
func (t *TAP) SetCarrier(on bool) error {
	value := 0
	if on {
		value = 1
	}
	if err := unix.IoctlSetPointerInt(t.queues[0], unix.TUNSETCARRIER, value); err != nil {
		return fmt.Errorf("tap %q: set carrier: %w", t.Name, err)
	}
	return nil
}
