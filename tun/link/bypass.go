package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// End is a NIC at one end of a wire, and its MTU in bytes.
type End struct {
	NIC string
	MTU int
}

// Bypass makes two NICs one wire without anything between them: the kernel
// redirects what comes in by either out by the other. It stays after the
// process; the next [Join] of a NIC ends it there, and knows what the NIC was
// before. On an error all is as it was.
func Bypass(a, b End) error {
	j := &Junction{}
	if err := j.bypass(a, b); err != nil {
		return errors.Join(fmt.Errorf("join %q to %q: %w", a.NIC, b.NIC, err), j.Close())
	}
	return nil
}

func (j *Junction) bypass(ends ...End) error {
	var nics [2]netlink.Link
	var before [2]nicState
	for i, e := range ends {
		nic, state, end, err := adoptNIC(e.NIC, false)
		if err == nil && nic.Attrs().MasterIndex != 0 { // in a killed fragwall's bridge
			err = end()
		}
		if err != nil {
			return err
		}
		nics[i], before[i] = nic, state
	}
	for i, nic := range nics {
		if before[i].mtu == ends[i].MTU {
			before[i].mtu = 0
		}
		if err := j.redirectTo(nic, nics[1-i], before[i].mark()|markBypass); err != nil {
			return err
		}
		j.undo.push(func() error { return before[i].restore(nic, ends[i].MTU) })
		if err := prepareNIC(nic, JoinConfig{MTU: ends[i].MTU}); err != nil {
			return err
		}
	}
	return nil
}
