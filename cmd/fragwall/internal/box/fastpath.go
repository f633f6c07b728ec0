package box

import (
	"errors"
	"io/fs"

	"fragwall/cmd/fragwall/internal/report"
	"fragwall/fastpath"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/wire"
)

// FastPath is what the box, and its wire, do with a [fastpath.FastPath].
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

// fastState is whether a box has a fast path.
type fastState struct {
	path     FastPath // nil where none was opened; closed once it is off
	on       bool
	attached bool               // to what is joined; what is joined later follows
	hooked   [verdict.Sides]int // index of the NIC that its programs are in front of; 0: of none
	behind   [verdict.Sides]int // index of the NIC that those of the process of before are in front of; 0: of none
	off      report.Off         // why it is not on
	err      error              // more on that; nil where there is nothing to say
	before   fastpath.Stats     // of the process that the box was taken over from
}

// stats returns what became of the frames, also before the box was taken over.
func (f *fastState) stats() fastpath.Stats {
	var s fastpath.Stats
	if f.path != nil {
		s = f.path.Stats()
	}
	s.Add(&f.before)
	return s
}

// openFastPath loads the fast path. Where there can be none, it logs why.
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

// AttachFastPath puts the fast path, where there is one, in front of the NICs that are
// joined.
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

// fastPathOptions returns what the fast path of a box is made by.
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

// drops returns what becomes of frames that are dropped, by how many events of them
// are wanted.
func drops(events filter.Rate) fastpath.Drops {
	switch events {
	case filter.Rate{}:
		return fastpath.DropSilently
	case rules.All:
		return fastpath.DropNone
	}
	return fastpath.DropSampled
}

// turnOff ends the fast path for good, for a reason, or one that follows from the
// error.
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

// hook puts the fast path in front of a side whose NIC was joined; in a sidecar of
// the namespace too. The caller holds joining.
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
		// Behind the fast path, which counts the fragments that it leaves to the process.
		if err := b.ports[side].Collect(e.nic); err != nil {
			b.log.Info("fragments go through the taps' queues, with a system call each", "error", err)
		}
	}
}

// unattach takes the programs from a side. The caller holds joining.
func (b *Box) unattach(side verdict.Side) {
	b.stopCollecting(side)
	b.fast.path.Detach(side)
	b.fast.hooked[side] = 0
}

// stopCollecting has the fragments that come in by a side go through its port.
func (b *Box) stopCollecting(sides ...verdict.Side) {
	for _, side := range sides {
		if p := b.ports[side]; p != nil {
			_ = p.Collect(0) // which can't fail
		}
	}
}

// attach puts the programs in front of a NIC, where they are not yet, and reports
// whether they are there.
func (b *Box) attach(side verdict.Side, nic int) bool {
	if nic != 0 && b.fast.hooked[side] == nic {
		return true
	}
	b.unattach(side) // from a NIC of before
	if err := b.fast.path.Attach(side, nic, b.ports[side].Index()); err != nil {
		b.turnOff("", err)
		return false
	}
	b.fast.hooked[side] = nic
	return true
}

// ContinueFastPath replaces the programs of the process that the box was taken over from, unless
// that process has put them in front of other NICs since. It is called between [Box.Adopt] and
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

// unhook takes the fast path from a side whose NIC is gone. The caller holds joining.
func (b *Box) unhook(side verdict.Side) {
	if b.fast.on {
		b.fast.path.SetEgress(side, false)
		b.unattach(side)
	}
}

// Watch has the frames of the flows that match take the way through the process, for
// as long as it is set; nil stands for none.
func (b *Box) Watch(match func(*flow.Key) bool) {
	if b.fast.path != nil {
		b.fast.path.Watch(match)
	}
}

// CloseFastPath ends the fast path. It takes long enough, as the kernel waits for who
// runs its programs, not to be left to when a NIC changes hands.
func (b *Box) CloseFastPath() error {
	b.joining.Lock()
	defer b.joining.Unlock()
	return b.closeFastPath()
}

// closeFastPath ends the fast path. The caller holds joining.
func (b *Box) closeFastPath() error {
	if !b.fast.on {
		return nil
	}
	b.fast.on = false
	b.stopCollecting(verdict.Inside, verdict.Outside)
	return b.fast.path.Close()
}

// FastPath says what the kernel does in place of the process.
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

// SetDropEvents says at what rate events of dropped frames are wanted.
func (b *Box) SetDropEvents(rate filter.Rate) {
	b.joining.Lock()
	defer b.joining.Unlock()
	if b.fast.on {
		b.fast.path.SetDrops(drops(rate))
	}
}
