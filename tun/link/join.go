package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"fragwall/tun/netdev"
)

// Config names the TAP and the NIC to join, which exist, and the method.
type Config struct {
	TAP, NIC string
	// Bridge is the name of a bridge to join them by. It does not exist, or a killed
	// instance left it. "" joins them by a redirect.
	Bridge string
	MTU    int // bytes, of all devices
	// Addressed says that the NIC has addresses, and that the caller removes them and
	// disables IPv6 on it.
	Addressed bool
}

// Junction is a TAP and a NIC that are joined.
type Junction struct {
	NIC    int // its index, which never changes
	tap    int // its index
	master int // the bridge's index; 0 for a redirect
	// redirects are the filters of the junction. Their priorities depend on other
	// filters.
	redirects []netdev.Redirect
	addressed bool     // the NIC has addresses
	before    nicState // former state of the NIC
	set       int      // its MTU in bytes that joining set; 0 if it set none
	undo      undoStack
	steps     []step // undo, in the form for another process
	kept      int    // number of steps of undo that remain when the NIC is free
}

// Join joins a TAP and a NIC: whatever arrives at one leaves by the other, unfiltered and
// without learning. The box itself neither sends nor receives frames there.
//
// A redirect, by traffic control, lets every Ethernet frame pass. A bridge drops MAC
// pause frames and frames that exceed its MTU. It is for kernels without the filter that
// the redirect needs, and for NICs that have a clsact qdisc of another program.
//
// On an error nothing is changed. [Junction.Close] removes what Join made, and restores
// what it changed, including what a killed instance changed on the NIC.
func Join(c Config) (*Junction, error) {
	j := &Junction{}
	if err := j.join(c); err != nil {
		return nil, errors.Join(fmt.Errorf("join %q to %q: %w", c.NIC, c.TAP, err), j.Close())
	}
	return j, nil
}

// Release removes what a killed instance left to join a NIC, and restores the NIC. bridge
// is the bridge that was to join it, if any: the instance may have been killed while the
// NIC was not in it. Without leftovers it does nothing. It fails if a living instance has
// the NIC. After an interruption, it can be called again.
func Release(nic, bridge string) error {
	if err := removeRenamed(); err != nil {
		return err
	}
	link, state, end, err := findJoined(nic)
	if err != nil {
		return err
	}
	switch {
	case end != nil: // the state is removed with it
		if err := state.restore(link, 0); err != nil {
			return err
		}
		if err := errors.Join(end(), state.netfilter.restore()); err != nil {
			return err
		}
	case bridge == "" && netdev.IdleClassifier(link): // the instance was killed before it had added a filter
		if err := netdev.RemoveClassifier(link.Attrs().Index); err != nil {
			return err
		}
	}
	if b, err := netlink.LinkByName(bridge); bridge != "" && err == nil {
		if state, ours := bridgeState(b); ours {
			return errors.Join(removeLeftover(b), state.netfilter.restore())
		}
	}
	return nil
}

// Detach restores the NIC, and leaves the rest to [Junction.Close], which may take
// longer.
func (j *Junction) Detach() error {
	return j.undo.run(j.kept)
}

// SetMTU follows a change of the NIC's MTU, in bytes. Below the minimum of IPv6 the
// kernel removes IPv6 with all its settings from a device, and above it adds IPv6 again,
// enabled (RFC 8200 section 5; net/ipv6/addrconf.c). So it is disabled again.
func (j *Junction) SetMTU(mtu int) error {
	nic, err := netlink.LinkByIndex(j.NIC)
	if err != nil {
		return fmt.Errorf("interface of index %d: %w", j.NIC, err)
	}
	if err := silenceNIC(nic, j.addressed); err != nil {
		return err
	}
	if j.master == 0 {
		return nil
	}
	if err := netdev.SetMTU(j.master, mtu); err != nil {
		return fmt.Errorf("bridge of index %d: set mtu %d: %w", j.master, mtu, err)
	}
	return netdev.DisableIPv6ByIndex(j.master)
}

// Intact reports whether the TAP and the NIC are still joined: another program may have removed
// the redirects or the bridge. The NIC must exist.
func (j *Junction) Intact() (bool, error) {
	for _, way := range [][2]int{{j.NIC, j.tap}, {j.tap, j.NIC}} {
		link, err := netlink.LinkByIndex(way[0])
		if err != nil {
			return false, fmt.Errorf("interface of index %d: %w", way[0], err)
		}
		if j.master != 0 {
			if link.Attrs().MasterIndex != j.master {
				return false, nil
			}
			continue
		}
		whole, err := redirects(link, way[1])
		if err != nil || !whole {
			return false, err
		}
	}
	return true, nil
}

// Devices returns the indices of the devices of the wire besides the NIC. Frames pass
// while all of them are up.
func (j *Junction) Devices() []int {
	if j.master == 0 {
		return []int{j.tap}
	}
	return []int{j.tap, j.master}
}

// Close takes the wire apart. Things that are already gone, such as an unplugged NIC, are
// no error. Closing again does nothing.
func (j *Junction) Close() error {
	return j.undo.run(0)
}

func (j *Junction) join(c Config) error {
	tap, err := netlink.LinkByName(c.TAP)
	if err != nil {
		return fmt.Errorf("tap %q: %w", c.TAP, err)
	}
	if err := removeRenamed(); err != nil {
		return err
	}
	nic, before, end, err := adoptNIC(c.NIC, c.Addressed)
	if err != nil {
		return err
	}
	inBridge := nic.Attrs().MasterIndex != 0 // of a killed instance
	j.NIC, j.tap, j.addressed = nic.Attrs().Index, tap.Attrs().Index, c.Addressed
	for _, name := range before.netfilter.sysctls() { // that a killed instance set to 0
		j.later(step{Kind: stepSysctl, Name: name, Value: "1"})
	}
	if before.mtu == c.MTU {
		before.mtu = 0 // it is not changed
	}
	// The NIC's former state is always stored somewhere: the new place exists before the
	// old one is removed.
	if c.Bridge == "" {
		err = j.redirect(nic, tap, before) // it replaces a redirect
	} else {
		err = j.bridge(c, nic, tap, &before)
	}
	if err != nil && end != nil {
		j.undo.push(end)
	}
	j.before = before
	j.later(step{Kind: stepRestore, Device: j.NIC})
	if err != nil {
		return err
	}
	if end != nil && (inBridge || c.Bridge != "") {
		if err := end(); err != nil && !netdev.Gone(err) {
			return err
		}
	}
	err = prepareNIC(nic, c)
	j.set = c.MTU
	return err
}

// undoStack is what must be done to restore everything, latest last.
type undoStack []func() error

func (u *undoStack) push(f func() error) { *u = append(*u, f) }

// run does all of it except the first kept steps, latest first, and removes them.
func (u *undoStack) run(kept int) error {
	var errs []error
	for len(*u) > kept {
		last := len(*u) - 1
		if err := (*u)[last](); err != nil && !netdev.Gone(err) {
			errs = append(errs, err)
		}
		*u = (*u)[:last]
	}
	return errors.Join(errs...)
}
