package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// NIC is one of the two NICs that a [Bypass] joins.
type NIC struct {
	Name string
	MTU  int // bytes
}

// Bypass joins two NICs without anything between them: the kernel redirects frames that
// arrive at either to the other. It stays after the process ends, and stores the NICs' former
// states. The next [Join] of a NIC ends it for that NIC. On an error nothing is changed.
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
		if err == nil && nic.Attrs().MasterIndex != 0 { // in the bridge of a killed instance
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
