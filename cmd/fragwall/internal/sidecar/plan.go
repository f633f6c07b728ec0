package sidecar

import (
	"errors"
	"fmt"
	"io"

	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun/handover"
	"fragwall/tun/netdev"
)

// Fit turns a configuration into that of a sidecar at a NIC, where the namespace itself is
// behind the inside TAP.
func Fit(c *rules.Config, nic string) error {
	switch {
	case c.Inside.NIC != "":
		return fmt.Errorf("inside has nic %q, but a sidecar's inside is the namespace itself: remove it", c.Inside.NIC)
	case c.Outside.NIC != "" && c.Outside.NIC != nic:
		return fmt.Errorf("outside has nic %q, but --nic says %q: remove one of them", c.Outside.NIC, nic)
	}
	for _, name := range []string{c.Inside.TAP, c.Outside.TAP, c.Outside.Bridge} {
		if name == nic {
			return errors.New(`"` + nic + `" is the nic's name: give the tap and the bridge names of their own`)
		}
	}
	c.Outside.NIC = nic
	return nil
}

// PrintPlan prints what a sidecar would do, or what prevents it.
func PrintPlan(w io.Writer, c *rules.Config, store *handover.Store) error {
	nic := c.Outside.NIC
	unlock, err := lockNIC(nic)
	if err != nil {
		return err
	}
	defer unlock()
	state, err := store.Load()
	if err != nil {
		return err
	}
	var lines []string
	if state != nil {
		lines = append(lines, fmt.Sprintf("# restore %s from the state of a killed sidecar: %s", nic, state.Summary()))
	} else if state, err = readNIC(nic, store); err != nil {
		return err
	}
	how := "a redirect"
	if c.Outside.Bridge != "" {
		how = fmt.Sprintf("bridge %q", c.Outside.Bridge)
	}
	for side, name := range []string{c.Inside.TAP, c.Outside.TAP} {
		if err := netdev.Vacant(name); err != nil {
			return fmt.Errorf("%s: %w", verdict.Side(side), err)
		}
		lines = append(lines, fmt.Sprintf("ip tuntap add %s mode tap", name))
	}
	lines = append(lines, state.Plan(c.Inside.TAP, fmt.Sprintf("# join %s to %s by %s", nic, c.Outside.TAP, how))...)
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
