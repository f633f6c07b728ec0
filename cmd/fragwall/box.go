package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"fragwall/cmd/fragwall/internal/datapath"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun"
	"fragwall/wire"
)

// box is the wire with its devices.
type box struct {
	*wire.Bump
	taps  [verdict.Sides]*tun.TAP
	lanes [verdict.Sides][]tun.Lane // by the side that they read from

	joining sync.Mutex
	// joining guards:
	ends   [verdict.Sides]end
	closed bool // no NIC is to be joined any more
}

// openBox makes the devices of both sides, and the lanes between them. On an
// error it leaves nothing of what it made. It and [box.close] belong on a
// thread in the network namespace where the devices are to be.
func openBox(c *rules.Config, log *slog.Logger, observer wire.Observer) (*box, error) {
	if err := checkDescriptors(queuesOf(c.Inside) + queuesOf(c.Outside)); err != nil {
		return nil, err
	}
	// The TAPs of a killed fragwall go in the kernel's own time. Until then what it
	// left on the NICs looks like another's.
	for side, i := range [verdict.Sides]rules.Interface{verdict.Inside: c.Inside, verdict.Outside: c.Outside} {
		if err := tun.Vacant(i.TAP); err != nil {
			return nil, fmt.Errorf("%s: %w", verdict.Side(side), err)
		}
	}
	c, err := withMTUs(c)
	if err != nil {
		return nil, err
	}
	if text := mtusDiffer(c.Inside.MTU, c.Outside.MTU); text != "" {
		log.Warn(text)
	}
	b := &box{}
	// A frame that is left to be cut into segments needs a TAP that takes it.
	offload := c.Inside.Offload && c.Outside.Offload
	for side, i := range [verdict.Sides]rules.Interface{verdict.Inside: c.Inside, verdict.Outside: c.Outside} {
		if err := b.openSide(verdict.Side(side), i, offload); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", verdict.Side(side), err), b.close())
		}
	}
	b.logMissing(c.Inside.Queues > 1 || c.Outside.Queues > 1, log)
	if err := b.connect(log); err != nil {
		return nil, errors.Join(err, b.close())
	}
	config := datapath.Config(c)
	config.Observer = observer
	for side, lanes := range b.lanes {
		config.Ends[side].Lanes = lanes
	}
	b.Bump = wire.New(config)
	return b, nil
}

// queuesOf returns how many queues a side's TAP is to have.
func queuesOf(i rules.Interface) int {
	if i.Queues == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return i.Queues
}

func (b *box) openSide(side verdict.Side, i rules.Interface, offload bool) (err error) {
	b.taps[side], err = tun.OpenTAP(tun.TAPConfig{Name: i.TAP, MTU: i.MTU, Queues: queuesOf(i), Offload: offload})
	if err != nil {
		return err
	}
	if i.NIC != "" {
		return b.join(side, i, false)
	}
	b.ends[side].config = i
	b.ends[side].link, err = tun.ReadLink(b.taps[side].Index())
	return err
}

// logMissing says what the kernel did not let the TAPs have. It warns of what
// the configuration asks for.
func (b *box) logMissing(queues bool, log *slog.Logger) {
	inside, outside := b.taps[verdict.Inside], b.taps[verdict.Outside]
	if err := cmp.Or(inside.WithoutThreads(), outside.WithoutThreads()); err != nil {
		log.Info("the kernel has no threads for what the taps send: the lanes send it", "error", err)
	}
	if err := cmp.Or(inside.WithoutQueues(), outside.WithoutQueues()); err != nil {
		level := slog.LevelInfo
		if queues {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "each tap has one queue: in several, a flow's packets and fragments would overtake one another", "error", err)
	}
}

// connect makes the lanes, over io_uring where that is to be had.
func (b *box) connect(log *slog.Logger) error {
	err := b.connectBy(tun.Ring)
	if err == nil {
		return nil
	}
	log.Warn("io_uring can't be used: frames take a system call each", "error", err)
	return b.connectBy(tun.Plain)
}

// connectBy makes the lanes of one kind, all or none.
func (b *box) connectBy(lanes func(from, to *tun.TAP) ([]tun.Lane, error)) error {
	for side := range verdict.Side(verdict.Sides) {
		var err error
		if b.lanes[side], err = lanes(b.taps[side], b.taps[side.Other()]); err != nil {
			return errors.Join(err, b.closeLanes())
		}
	}
	return nil
}

// missed returns how many frames of each side the kernel dropped before the box
// read them, as long as its devices are there.
func (b *box) missed() map[verdict.Side]uint64 {
	missed := make(map[verdict.Side]uint64)
	for side, t := range b.taps {
		if n, err := t.Missed(); err == nil {
			missed[verdict.Side(side)] = n
		}
	}
	return missed
}

func (b *box) closeLanes() error {
	var errs []error
	for side, lanes := range b.lanes {
		for _, l := range lanes {
			errs = append(errs, l.Close())
		}
		b.lanes[side] = nil
	}
	return errors.Join(errs...)
}

// close removes what openBox made, in reverse order.
func (b *box) close() error {
	errs := []error{b.closeLanes(), b.part((*tun.Junction).Close)}
	for side := verdict.Sides - 1; side >= 0; side-- {
		if t := b.taps[side]; t != nil {
			errs = append(errs, t.Close())
		}
	}
	return errors.Join(errs...)
}

// serve makes the devices, calls ready when frames begin to flow, forwards
// until ctx is done, and removes what it made; then, where on_exit says so, it
// leaves the NICs joined to one another. The observer may be nil.
func serve(ctx context.Context, c *rules.Config, log *slog.Logger, observer wire.Observer, ready func(*box)) (err error) {
	b, err := openBox(c, log, observer)
	if err != nil {
		return err
	}
	defer func() {
		ends := b.bypassEnds(c)
		err = errors.Join(err, b.close())
		if err == nil && c.OnExit == rules.ExitBypass {
			err = bypass(ends)
		}
	}()
	defer relax(len(b.lanes[verdict.Inside]) + len(b.lanes[verdict.Outside]))()
	ready(b)
	return b.Run(ctx)
}
