package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/confine"
	"fragwall/cmd/fragwall/internal/daemon"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun/handover"
	"fragwall/tun/netdev"
)

// attachment is the attachment of a box to the NIC of a namespace: the addresses, routes and
// neighbours of the NIC move to the inside TAP, and the NIC is joined to the outside TAP.
type attachment struct {
	config *rules.Config // after [Fit]
	store  *handover.Store
	log    *slog.Logger
	kernel *namespace
	box    *box.Box

	changed chan struct{} // signals changes of addresses, routes or neighbours
	mu      sync.Mutex
	// mu guards:
	state *handover.State
}

var _ daemon.Attachment = (*attachment)(nil)

// Run runs a daemon at the NIC of a configuration that [Fit] returned. It moves the NIC's state
// to the box, waits until ctx is done or the wire fails, and moves everything back.
func Run(ctx context.Context, d *daemon.Daemon, c *rules.Config, store *handover.Store) error {
	s := &attachment{config: c, store: store, log: d.Log(), kernel: &current, changed: make(chan struct{}, 1)}
	nic := c.Outside.NIC
	unlock, err := lockNIC(nic)
	if err != nil {
		return err
	}
	defer unlock()
	if err := replaceLeft(nic, store, s.log); err != nil {
		return err
	}
	if s.state, err = readNIC(nic, store); err != nil {
		return err
	}
	s.state.TAPs, s.state.Bridge = []string{c.Inside.TAP, c.Outside.TAP}, c.Outside.Bridge
	c.Inside.MTU, c.Outside.MTU = s.state.MTU, s.state.MTU
	return d.Run(ctx, s.devices(), s)
}

// Attach moves the NIC's state to the inside TAP, and joins the NIC to the outside TAP.
func (s *attachment) Attach(b *box.Box) (about []any, err error) {
	s.box = b
	if err := s.store.Save(s.state); err != nil {
		return nil, fmt.Errorf("%w: choose with --state a writable directory that outlives the process", err)
	}
	kept, err := s.kernel.move(s.state, s.config.Inside.TAP, func() error { return b.Join(verdict.Outside, s.config.Outside, true) })
	if err != nil {
		return nil, err
	}
	for _, setting := range kept {
		s.log.Warn("cannot copy a setting of the nic to the tap: set it where the namespace is created", "want", setting)
	}
	return []any{"nic", s.state.NIC, "inside", s.config.Inside.TAP, "outside", s.config.Outside.TAP, "moved", s.state.Summary()}, nil
}

// Prepare marks the inside as the namespace itself.
func (s *attachment) Prepare(setup *box.Setup) { setup.Sidecar = true }

// Adapt makes both sides follow the NIC's MTU, and a NIC that has returned replace the previous
// one.
func (s *attachment) Adapt(w *box.Watch) {
	w.SharedMTU = true
	w.Rejoined = s.rejoined
}

func (s *attachment) rejoined(nic netdev.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.kernel.replace(s.state, nic.Name, s.config.Inside.TAP); err != nil {
		s.log.Error("cannot take over the nic that returned", "error", err)
		return
	}
	select {
	case s.changed <- struct{}{}: // its state is to be moved
	default:
	}
}

// readNIC reads the state of a NIC at which a sidecar is to start.
func readNIC(nic string, store *handover.Store) (*handover.State, error) {
	state, err := handover.Read(nic)
	if err == nil && len(state.Addresses) == 0 {
		err = fmt.Errorf("nic %q has no addresses to move: if a sidecar was killed here, its state is not in %q", nic, store.Path())
	}
	return state, err
}

// Needs returns the rights that are needed to move the state back: access to the kept state,
// and to a TAP by which the kernel learns its routes again.
func (s *attachment) Needs() confine.Plan {
	return confine.Plan{Keep: []string{filepath.Dir(s.store.Path())}, Devices: []string{"/dev/net/tun"}}
}

// devices returns the configuration without the NIC, which is joined later. Each TAP has one
// queue: the workload shares the namespace, and as root with CAP_SETUID it could attach its own
// queue to a TAP with several.
func (s *attachment) devices() *rules.Config {
	c := *s.config
	c.Outside.NIC = ""
	c.Inside.Queues, c.Outside.Queues = 1, 1
	return &c
}

// Detach gives the TAP's state to the NIC, and removes the NIC from the wire. If something
// fails, the kept state remains for another try.
func (s *attachment) Detach() error {
	s.adoptLate()
	if err := s.keep(); err != nil {
		s.log.Warn("cannot save the state: changes since the start are lost if restoring fails", "error", err)
	}
	err := s.kernel.putBack(s.state, s.config.Inside.TAP, func() error { return s.box.Part(box.Junction.Detach) })
	err = errors.Join(err, s.box.Part(box.Junction.Close))
	if err != nil {
		return fmt.Errorf("%w: \"fragwall sidecar --restore --nic %s\" tries again with the state in %q", err, s.state.NIC, s.store.Path())
	}
	return s.store.Remove()
}

// keep stores the current state of the TAP.
func (s *attachment) keep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.kernel.moved(s.state) {
		return nil
	}
	if err := s.kernel.refresh(s.state, s.config.Inside.TAP); err != nil {
		return err
	}
	return s.store.Save(s.state)
}
