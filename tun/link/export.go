package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"fragwall/tun/netdev"
)

// step is one step of undoing a join.
type step struct {
	Kind   stepKind `json:"kind"`
	Device int      `json:"device,omitempty"` // its index
	Name   string   `json:"name,omitempty"`   // of the device, or of the sysctl
	Value  string   `json:"value,omitempty"`  // of the sysctl, from before
}

type stepKind string

const (
	stepRedirects stepKind = "redirects" // remove the redirects of a device
	stepBridge    stepKind = "bridge"    // remove the bridge
	stepPort      stepKind = "port"      // remove a device from the bridge
	stepRestore   stepKind = "restore"   // restore the NIC
	stepSysctl    stepKind = "sysctl"    // restore a sysctl
)

// later adds a step to those that Close runs.
func (j *Junction) later(s step) {
	j.steps = append(j.steps, s)
	j.undo.push(func() error { return j.undoStep(s) })
}

func (j *Junction) undoStep(s step) error {
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: s.Device, Name: s.Name}}
	switch s.Kind {
	case stepRedirects:
		return endRedirects(device, j.redirectsOf(s.Device))
	case stepBridge:
		return netlink.LinkDel(device)
	case stepPort:
		return netlink.LinkSetNoMaster(device)
	case stepRestore:
		return j.before.restore(device, j.set)
	case stepSysctl:
		return netdev.SetSysctl(s.Name, s.Value)
	}
	return fmt.Errorf("unknown step %q", s.Kind)
}

// Exported is a junction that another process can take over.
type Exported struct {
	NIC       int               `json:"nic"` // indices
	TAP       int               `json:"tap"`
	Bridge    int               `json:"bridge,omitempty"`
	Redirects []netdev.Redirect `json:"redirects,omitempty"`
	Addressed bool              `json:"addressed,omitempty"`
	Before    uint32            `json:"before"` // the NIC's state, as a mark
	MTU       int               `json:"mtu"`    // set by joining, in bytes
	Steps     []step            `json:"steps"`
	Kept      int               `json:"kept"`
}

// Export returns what another process needs to take over the junction. That process then
// takes the wire apart.
func (j *Junction) Export() Exported {
	return Exported{j.NIC, j.tap, j.master, j.redirects, j.addressed, j.before.mark(), j.set, j.steps, j.kept}
}

// Import returns a junction that another process exported. It changes nothing.
func Import(e Exported) (*Junction, error) {
	before, ok := stateOf(e.Before)
	if !ok {
		return nil, fmt.Errorf("take over the junction of nic %d: no state of the nic", e.NIC)
	}
	j := &Junction{
		NIC: e.NIC, tap: e.TAP, master: e.Bridge, redirects: e.Redirects, addressed: e.Addressed, before: before, set: e.MTU, kept: e.Kept,
	}
	for _, s := range e.Steps {
		switch s.Kind {
		case stepRedirects, stepBridge, stepPort, stepRestore, stepSysctl:
			j.later(s)
		default:
			return nil, fmt.Errorf("take over the junction of nic %d: unknown step %q", e.NIC, s.Kind)
		}
	}
	if len(j.steps) == 0 || e.Kept < 0 || e.Kept > len(j.steps) {
		return nil, errors.New("take over a junction: no step to undo it")
	}
	return j, nil
}
