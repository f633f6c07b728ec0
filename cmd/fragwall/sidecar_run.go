package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/cmd/fragwall/internal/confine"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun/handover"
	"fragwall/tun/link"
	"fragwall/tun/netdev"
)

// sidecar is the box at the NIC of a namespace.
type sidecar struct {
	*operator
	config   *rules.Config // as it fits the NIC
	controls *controls
	store    *handover.Store
	box      *box

	changed chan struct{} // addresses, routes or neighbours did
	mu      sync.Mutex
	// mu guards:
	state *handover.State
}

// run moves the NIC's state to the box, waits until ctx is done or the wire
// fails, and puts all back.
func (s *sidecar) run(ctx context.Context) (err error) {
	nic := s.config.Outside.NIC
	unlock, err := lockNIC(nic)
	if err != nil {
		return err
	}
	defer unlock()
	if err := replaceLeft(nic, s.store, s.log); err != nil {
		return err
	}
	if s.state, err = readNIC(nic, s.store); err != nil {
		return err
	}
	s.state.TAPs, s.state.Bridge = []string{s.config.Inside.TAP, s.config.Outside.TAP}, s.config.Outside.Bridge
	s.adopt()
	if s.box, err = openBox(s.devices(), s.log, s.events); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.box.close()) }()

	defer relax(len(s.box.lanes[verdict.Inside]) + len(s.box.lanes[verdict.Outside]))()
	wire, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.box.Run(wire) }()
	if err = s.take(); err == nil {
		control, quit := context.WithCancel(ctx)
		s.begin(control, s.box, s.controls)
		s.follow(control)
		s.helpers.Go(func() { s.newLinkWatch().run(control) })
		s.operator.confine(s.needs())
		s.ready("nic", s.state.NIC, "inside", s.config.Inside.TAP, "outside", s.config.Outside.TAP,
			"moved", s.state.Summary(), "policy", s.config.Summary())
		select {
		case <-ctx.Done():
		case err = <-ended:
			ended <- nil
		}
		quit()
		s.end()
	}
	err = errors.Join(err, s.putBack())
	stop()
	return errors.Join(err, <-ended)
}

// readNIC takes the state of a NIC that a sidecar is to move in at.
func readNIC(nic string, store *handover.Store) (*handover.State, error) {
	state, err := handover.Read(nic)
	if err == nil && len(state.Addresses) == 0 {
		err = fmt.Errorf("nic %q has no addresses that could move: if a sidecar was killed here, its state is not in %q", nic, store.Path())
	}
	return state, err
}

// needs is what putting back takes: the kept state, and a TAP by which the
// kernel learns its routes again.
func (s *sidecar) needs() confine.Plan {
	return confine.Plan{Keep: []string{filepath.Dir(s.store.Path())}, Devices: []string{"/dev/net/tun"}}
}

// adopt gives the configuration the NIC's MTU.
func (s *sidecar) adopt() {
	s.config.Inside.MTU, s.config.Outside.MTU = s.state.MTU, s.state.MTU
}

// devices is the configuration without the NIC, which is joined in its time.
func (s *sidecar) devices() *rules.Config {
	c := *s.config
	c.Outside.NIC = ""
	return &c
}

// take moves the NIC's state to the inside TAP, and joins the NIC to the
// outside.
func (s *sidecar) take() error {
	if err := s.store.Save(s.state); err != nil {
		return fmt.Errorf("%w: --state names a directory that can be written to, and outlives the process", err)
	}
	kept, err := s.state.Move(s.config.Inside.TAP, func() error { return s.box.join(verdict.Outside, s.config.Outside, true) })
	if err != nil {
		return err
	}
	for _, setting := range kept {
		s.log.Warn("a setting could not be copied from the nic: set it where the namespace is made", "want", setting)
	}
	return nil
}

// putBack gives the NIC what the TAP has, and takes it out of the wire. What
// fails leaves the state kept, for another try.
func (s *sidecar) putBack() error {
	s.adoptLate()
	if err := s.keep(); err != nil {
		s.log.Warn("what changed since the start is lost should putting back fail", "error", err)
	}
	err := s.state.Return(s.config.Inside.TAP, func() error { return s.box.part((*link.Junction).Detach) })
	err = errors.Join(err, s.box.part((*link.Junction).Close))
	if err != nil {
		return fmt.Errorf("%w: \"fragwall sidecar --restore --nic %s\" tries again, by what is kept in %q", err, s.state.NIC, s.store.Path())
	}
	return s.store.Remove()
}

// keep keeps what the TAP has by now.
func (s *sidecar) keep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.state.Moved() {
		return nil
	}
	if err := s.state.Refresh(s.config.Inside.TAP); err != nil {
		return err
	}
	return s.store.Save(s.state)
}

// lockNIC keeps a second sidecar from a NIC: of an abstract socket's name there
// is one in a network namespace, and it goes with the process (unix(7)).
func lockNIC(nic string) (unlock func(), err error) {
	l, err := net.Listen("unix", "@fragwall/sidecar/"+nic)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("nic %q: another sidecar has it", nic)
	}
	if err != nil {
		return nil, fmt.Errorf("lock nic %q: %w", nic, err)
	}
	return func() { _ = l.Close() }, nil
}

// putBackLeft puts back what a killed sidecar left of a NIC, and reports whether
// there was anything.
func putBackLeft(store *handover.Store, log *slog.Logger) (done bool, err error) {
	state, err := store.Load()
	if err != nil {
		return false, err
	}
	if state == nil {
		return false, store.Remove() // of what is only begun, or of a namespace that is no more
	}
	if err := awaitEnd(state.TAPs); err != nil {
		return false, err
	}
	nic, err := state.Device()
	if err != nil {
		return false, fmt.Errorf("%w: what it had is kept in %q", err, store.Path())
	}
	if err := state.Return(state.TAPs[0], func() error { return link.Release(nic, state.Bridge) }); err != nil {
		return false, err
	}
	log.Info("put back what a killed sidecar left", "nic", nic, "returned", state.Summary())
	return true, store.Remove()
}

// replaceLeft is [putBackLeft] for a start: what a killed sidecar left of a NIC
// that is gone does not keep it from another one of the name.
func replaceLeft(nic string, store *handover.Store, log *slog.Logger) error {
	_, err := putBackLeft(store, log)
	if !errors.Is(err, netdev.ErrMissing) {
		return err
	}
	if _, readErr := readNIC(nic, store); readErr != nil {
		return err
	}
	path, asideErr := store.SetAside()
	if asideErr != nil {
		return asideErr
	}
	log.Warn("a killed sidecar's nic is gone, and another has its name: what it had is kept", "nic", nic, "file", path, "error", err)
	return nil
}

// endDelay is how long the kernel may take to remove the devices of a killed
// process: their rings are freed when nobody waits for it.
const endDelay = 10 * time.Second

// awaitEnd waits until a killed sidecar's devices are gone.
func awaitEnd(taps []string) error {
	deadline := time.Now().Add(endDelay)
	for _, name := range taps {
		for {
			if _, err := net.InterfaceByName(name); err != nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("tap %q is still there: end the process that has it", name)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// restoreNIC puts back what a killed sidecar left, and nothing else.
func restoreNIC(nic string, store *handover.Store, log *slog.Logger) error {
	unlock, err := lockNIC(nic)
	if err != nil {
		return err
	}
	defer unlock()
	done, err := putBackLeft(store, log)
	if err == nil && !done {
		log.Info("nothing to put back: no killed sidecar left anything", "nic", nic, "file", store.Path())
	}
	return err
}

// printPlan tells what a sidecar would do, or what keeps it from that.
func printPlan(w io.Writer, c *rules.Config, store *handover.Store) error {
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
		lines = append(lines, fmt.Sprintf("# put back on %s what a killed sidecar left: %s", nic, state.Summary()))
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
