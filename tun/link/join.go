package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"fragwall/tun/netdev"
)

// Config names what to join. The TAP and the NIC exist.
type Config struct {
	TAP, NIC string
	// Bridge is the name of a bridge to join them by. It does not exist, or is
	// what a killed fragwall left. "" joins them by a redirect.
	Bridge string
	MTU    int // bytes, of all
	// Addressed says that the NIC has addresses, and that who joins it takes
	// them away, and keeps it from speaking IPv6.
	Addressed bool
}

// Junction is a TAP and a NIC made one wire.
type Junction struct {
	NIC    int // its index, which it keeps for life, whatever it is called
	tap    int // its index
	master int // the bridge's index; 0 for a redirect
	// redirects are those that it is made of; their priorities follow from what else
	// there is.
	redirects []netdev.Redirect
	addressed bool     // the NIC is
	before    nicState // of the NIC
	set       int      // its MTU, in bytes, that joining set; 0 where it has set none
	undo      undoStack
	steps     []step // of undo, for another process
	kept      int    // how much of undo is left when the NIC is free
}

// Join makes a TAP and a NIC one wire: whatever comes in by one leaves by the
// other, unlearned and unfiltered. The box neither sends a frame of its own
// there nor takes one for itself.
//
// A redirect, made of the kernel's traffic control, lets every Ethernet frame
// pass. A bridge keeps MAC pause frames and what exceeds its MTU; it is for
// kernels without the classifier that the redirect needs, and for NICs that
// have a classifier of somebody else's.
//
// On an error all is as it was. [Junction.Close] removes what Join made, and
// sets back what it changed. What a killed fragwall changed on the NIC is set
// back with it.
func Join(c Config) (*Junction, error) {
	j := &Junction{}
	if err := j.join(c); err != nil {
		return nil, errors.Join(fmt.Errorf("join %q to %q: %w", c.NIC, c.TAP, err), j.Close())
	}
	return j, nil
}

// Release ends what a killed fragwall left a NIC joined by, and sets back what
// that had changed on the NIC. The bridge is the one that was to join it, if any:
// the fragwall may have been killed while the NIC was not in it. Where there is
// nothing of the kind, it does nothing. It fails where a fragwall that lives has
// the NIC. What it is interrupted at, it does when it is called again.
func Release(nic, bridge string) error {
	if err := removeRenamed(); err != nil {
		return err
	}
	link, state, end, err := findJoined(nic)
	if err != nil {
		return err
	}
	switch {
	case end != nil: // the state goes with it
		if err := state.restore(link, 0); err != nil {
			return err
		}
		if err := end(); err != nil {
			return err
		}
	case bridge == "" && netdev.IdleClassifier(link): // it was killed before it had a filter
		if err := netdev.RemoveClassifier(link.Attrs().Index); err != nil {
			return err
		}
	}
	if b, err := netlink.LinkByName(bridge); bridge != "" && err == nil {
		if _, ours := bridgeState(b); ours {
			return removeLeftover(b)
		}
	}
	return nil
}

// Detach frees the NIC, as it was before, and leaves the rest to [Junction.Close],
// which may take longer.
func (j *Junction) Detach() error {
	return j.undo.run(j.kept)
}

// SetMTU follows a NIC whose MTU, in bytes, was changed. Below the least one of IPv6
// the kernel takes IPv6 from a device with all of its settings, and gives it back, on,
// above (RFC 8200 section 5; net/ipv6/addrconf.c): it is turned off again.
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

// Intact reports whether the TAP and the NIC, which is there, are still one
// wire: what joins them may have been removed by hand.
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

// Devices returns the indices of what the wire is made of besides the NIC: frames
// pass while all of it is up.
func (j *Junction) Devices() []int {
	if j.master == 0 {
		return []int{j.tap}
	}
	return []int{j.tap, j.master}
}

// Close takes the wire apart. What vanished in the meantime, as a NIC that was
// unplugged, is no error. Closing again does nothing.
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
	inBridge := nic.Attrs().MasterIndex != 0 // a killed fragwall's
	j.NIC, j.tap, j.addressed = nic.Attrs().Index, tap.Attrs().Index, c.Addressed
	if before.mtu == c.MTU {
		before.mtu = 0 // it is not changed
	}
	// At every moment the NIC has something that carries its former state: the new
	// one is there before the old one goes.
	if c.Bridge == "" {
		err = j.redirect(nic, tap, before) // takes a redirect's place
	} else {
		err = j.bridge(c, nic, tap, before)
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

// undoStack is what there is to do to get back, latest last.
type undoStack []func() error

func (u *undoStack) push(f func() error) { *u = append(*u, f) }

// run does all of it but the first kept, latest first, and forgets it.
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
