package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// NIC is one of the two that a [Bypass] joins.
type NIC struct {
	Name string
	MTU  int // bytes
}

// Bypass makes two NICs one wire without anything between them: the kernel
// redirects what comes in by either out by the other. It stays after the
// process; the next [Join] of a NIC ends it there, and knows what the NIC was
// before. On an error all is as it was.
func Bypass(a, b NIC) error {
	j := &Junction{}
	if err := j.bypass(a, b); err != nil {
		return errors.Join(fmt.Errorf("join %q to %q: %w", a.Name, b.Name, err), j.Close())
	}
	return nil
}

func (j *Junction) bypass(pair ...NIC) error {
	var nics [2]netlink.Link
	var before [2]nicState
	for i, n := range pair {
		nic, state, end, err := adoptNIC(n.Name, false)
		if err == nil && nic.Attrs().MasterIndex != 0 { // in a killed fragwall's bridge
			err = end()
		}
		if err != nil {
			return err
		}
		nics[i], before[i] = nic, state
	}
	for i, nic := range nics {
		if before[i].mtu == pair[i].MTU {
			before[i].mtu = 0
		}
		if err := j.redirectTo(nic, nics[1-i], before[i].mark()|markBypass); err != nil {
			return err
		}
		j.undo.push(func() error { return before[i].restore(nic, pair[i].MTU) })
		if err := prepareNIC(nic, Config{MTU: pair[i].MTU}); err != nil {
			return err
		}
	}
	return nil
}
