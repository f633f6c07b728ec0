package box

import (
	"errors"
	"io/fs"
	"syscall"
	"time"

	"fragwall/cmd/fragwall/internal/report"
	"fragwall/fastpath"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/wire"
)

// FastPath is the part of [fastpath.FastPath] that a box and its wire use.
type FastPath interface {
	wire.FastPath
	Attach(side verdict.Side, nic, tap int) error
	Continue(side verdict.Side, nic, tap int) error
	Detach(side verdict.Side)
	Export() (*fastpath.Exported, error)
	Suspend()
	Resume()
	ContinueCounts(*fastpath.Stats)
	SetMTU(side verdict.Side, bytes int)
	SetEgress(side verdict.Side, up bool)
	SetDrops(fastpath.Drops)
	Watch(match func(*flow.Key) bool)
	Stats() fastpath.Stats
	Close() error
}

// fastState is the state of a box's fast path.
type fastState struct {
	path     FastPath // nil if none was opened; closed if it is off
	on       bool
	attached bool               // attached to the NICs that are joined; those joined later follow
	hooked   [verdict.Sides]int // index of the NIC that its programs are attached to; 0: none
	behind   [verdict.Sides]int // index of the NIC that the previous process's programs are attached to; 0: none
	off      report.Off         // why it is off
	err      error              // details; may be nil
	before   fastpath.Stats     // counters of the process from which the box was taken over
}

// stats returns the counters, including those before the box was taken over.
func (f *fastState) stats() fastpath.Stats {
	var s fastpath.Stats
	if f.path != nil {
		s = f.path.Stats()
	}
	s.Add(&f.before)
	return s
}

// openFastPath loads the fast path. If that is impossible, it logs the reason.
func (b *Box) openFastPath(s *Setup, c *rules.Config) {
	f := &b.fast
	switch {
	case c.FastPath == rules.FastPathOff:
		f.off = report.OffConfiguration
	case c.Inside.Bridge != "" || c.Outside.Bridge != "":
		f.off = report.OffBridge
	case !s.Sidecar && (c.Inside.NIC == "" || c.Outside.NIC == ""):
		f.off = report.OffNoNIC
	default:
		f.path, f.err = b.kernel.OpenFastPath(fastPathOptions(s, c))
		f.on = f.err == nil
	}
	if !f.on {
		b.turnOff(f.off, f.err)
		return
	}
	for side, mtu := range [verdict.Sides]int{verdict.Inside: c.Inside.MTU, verdict.Outside: c.Outside.MTU} {
		f.path.SetMTU(verdict.Side(side), mtu)
	}
}

// AttachFastPath attaches the fast path, if it is on, to the NICs that are joined.
func (b *Box) AttachFastPath() {
	b.joining.Lock()
	defer b.joining.Unlock()
	b.fast.attached = true
	for side := range verdict.Side(verdict.Sides) {
		if b.ends[side].joined {
			b.hook(side)
		}
	}
}

// fastPathOptions returns the options of a box's fast path.
func fastPathOptions(s *Setup, c *rules.Config) fastpath.Options {
	o := fastpath.Options{
		Mode: c.Fragments.Mode, TimeoutIPv4: c.Fragments.TimeoutIPv4, TimeoutIPv6: c.Fragments.TimeoutIPv6, MaxFragments: c.Fragments.MaxFragments,
		Drops: drops(c.Log.Drops), Entries: fastpath.Entries, From: s.FastPath,
	}
	if s.Sidecar {
		o.Entries = fastpath.SidecarEntries
	}
	return o
}

// drops returns how the fast path handles frames to drop, according to the rate of drop events.
func drops(events filter.Rate) fastpath.Drops {
	switch events {
	case filter.Rate{}:
		return fastpath.DropSilently
	case rules.All:
		return fastpath.DropNone
	}
	return fastpath.DropSampled
}

// turnOff turns the fast path off permanently. If why is "", the reason follows from err.
func (b *Box) turnOff(why report.Off, err error) {
	if b.fast.path != nil {
		b.stopCollecting(verdict.Inside, verdict.Outside)
		err = errors.Join(err, b.fast.path.Close())
	}
	if why == "" {
		switch why = report.OffError; {
		case errors.Is(err, fs.ErrPermission):
			why = report.OffRights
		case errors.Is(err, fastpath.ErrUnavailable):
			why = report.OffKernel
		}
	}
	b.fast.on, b.fast.off, b.fast.err = false, why, err
	about := []any{"reason", string(why)}
	if err != nil {
		about = append(about, "error", err)
	}
	b.log.Info("the fast path is off: every frame goes through the process", about...)
}

// hook attaches the fast path to a side whose NIC was joined, and in a sidecar also to the
// inside port. The caller holds joining.
func (b *Box) hook(side verdict.Side) {
	if !b.fast.on || !b.fast.attached {
		return
	}
	sides := []verdict.Side{side}
	if b.sidecar {
		sides = append(sides, side.Other())
	}
	for _, side := range sides {
		e := &b.ends[side]
		if !b.attach(side, e.nic) {
			return
		}
		b.fast.path.SetEgress(side, e.hasLink())
		// After the fast path's programs, which count the fragments that they pass up.
		if err := b.collect(side, e.nic); err != nil {
			b.log.Info("fragments go through the taps' queues, with a system call each", "error", err)
		}
	}
}

// collectTimeout is the time that a process from which this one took over may need to stop
// collecting.
const collectTimeout = time.Second

// collect makes the port of a side collect the fragments of a NIC. The program that does so can be
// attached only once, and the process from which this one took over may not have detached it yet.
func (b *Box) collect(side verdict.Side, nic int) error {
	for end := time.Now().Add(collectTimeout); ; time.Sleep(time.Millisecond) {
		if err := b.ports[side].Collect(nic); !errors.Is(err, fs.ErrExist) || time.Now().After(end) {
			return err
		}
	}
}

// unattach detaches the programs from a side. The caller holds joining.
func (b *Box) unattach(side verdict.Side) {
	b.stopCollecting(side)
	b.fast.path.Detach(side)
	b.fast.hooked[side] = 0
}

// stopCollecting makes the fragments that arrive on the given sides go through the queues of
// the ports.
func (b *Box) stopCollecting(sides ...verdict.Side) {
	for _, side := range sides {
		if p := b.ports[side]; p != nil {
			_ = p.Collect(0) // cannot fail
		}
	}
}

// attach attaches the programs to a NIC unless they are attached already. It reports whether
// they are attached.
func (b *Box) attach(side verdict.Side, nic int) bool {
	if nic != 0 && b.fast.hooked[side] == nic {
		return true
	}
	b.unattach(side) // from a previous NIC
	if err := b.fast.path.Attach(side, nic, b.ports[side].Index()); err != nil {
		if !errors.Is(err, syscall.ENODEV) { // otherwise the NIC is gone, and they are attached when it returns
			b.turnOff("", err)
		}
		return false
	}
	b.fast.hooked[side] = nic
	return true
}

// ContinueFastPath replaces the programs of the process from which the box was taken over,
// unless that process has attached them to other NICs since. Call it between [Box.Adopt] and
// [Box.Run], once the other process has stopped.
func (b *Box) ContinueFastPath() {
	b.joining.Lock()
	defer b.joining.Unlock()
	if !b.fast.on {
		return
	}
	for side := range verdict.Side(verdict.Sides) {
		e, f := &b.ends[side], &b.fast
		if e.joined && f.behind[side] == e.nic && f.path.Continue(side, e.nic, b.ports[side].Index()) == nil {
			f.hooked[side] = e.nic
			f.path.SetEgress(side, e.hasLink())
		} else {
			f.path.Detach(side)
		}
	}
}

// unhook detaches the fast path from a side whose NIC is gone. The caller holds joining.
func (b *Box) unhook(side verdict.Side) {
	if b.fast.on {
		b.fast.path.SetEgress(side, false)
		b.unattach(side)
	}
}

// Watch makes the frames of matching flows go through the process until the next call. nil
// matches no flow.
func (b *Box) Watch(match func(*flow.Key) bool) {
	if b.fast.path != nil {
		b.fast.path.Watch(match)
	}
}

// CloseFastPath turns off the fast path. Call it in advance when a NIC is handed over, because
// the kernel waits for running programs, which takes time.
func (b *Box) CloseFastPath() error {
	b.joining.Lock()
	defer b.joining.Unlock()
	return b.closeFastPath()
}

// closeFastPath turns off the fast path. The caller holds joining.
func (b *Box) closeFastPath() error {
	if !b.fast.on {
		return nil
	}
	b.fast.on = false
	b.stopCollecting(verdict.Inside, verdict.Outside)
	return b.fast.path.Close()
}

// FastPath returns the state and the counters of the fast path.
func (b *Box) FastPath() report.FastPath {
	b.joining.Lock()
	defer b.joining.Unlock()
	stats := b.fast.stats()
	var rings [verdict.Sides]uint64
	for side, p := range b.ports {
		rings[side] = p.Collected()
	}
	r := report.OfFastPath(&stats, rings)
	if b.fast.off != "" {
		r = r.TurnedOff(b.fast.off, b.fast.err)
	}
	return r
}

// SetDropEvents sets the rate of drop events that the log wants.
func (b *Box) SetDropEvents(rate filter.Rate) {
	b.joining.Lock()
	defer b.joining.Unlock()
	if b.fast.on {
		b.fast.path.SetDrops(drops(rate))
	}
}
