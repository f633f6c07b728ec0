package wire

import (
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
)

// fragmentMode decides how the fragments of one direction are handled.
type fragmentMode interface {
	// take decides on the frame with the fragment that a direction decoded last. It settles or
	// drops it, or keeps a copy.
	take(d *direction, f *tun.Frame)
}

var (
	_ fragmentMode = (*reassembly)(nil)
	_ fragmentMode = (*validation)(nil)
	_ fragmentMode = firstAcceptRest{}
	_ fragmentMode = firstDropRest{}
	_ fragmentMode = dropFragments{}
)

// newFragmentModes returns a constructor for a direction's mode, which takes the direction's
// ledger, and the table that holds fragments, or nil if the mode holds none.
func newFragmentModes(c *Config) (mode func(stack.Ledger) fragmentMode, table *stack.Table) {
	switch c.Mode {
	case packet.ModeReassemble:
		r := stack.NewReassembler(c.Fragments)
		return func(l stack.Ledger) fragmentMode { return &reassembly{r.With(l), c.Emit} }, r.Table
	case packet.ModeValidate:
		if c.FastPath != nil {
			c.Fragments.Begun = c.FastPath.Passed
		}
		v := stack.NewValidator(c.Fragments)
		return func(l stack.Ledger) fragmentMode { return &validation{v.With(l)} }, v.Table
	case packet.ModeFirstAcceptRest:
		return func(stack.Ledger) fragmentMode { return firstAcceptRest{} }, nil
	case packet.ModeFirstDropRest:
		return func(stack.Ledger) fragmentMode { return firstDropRest{} }, nil
	}
	return func(stack.Ledger) fragmentMode { return dropFragments{} }, nil
}

// firstAcceptRest judges only first fragments, and accepts all others.
type firstAcceptRest struct{}

func (firstAcceptRest) take(d *direction, f *tun.Frame) {
	if d.parsed.Fragment.Offset > 0 {
		d.settle(f, filter.Verdict{Action: verdict.Accept}, false)
		return
	}
	d.judgeFrame(f)
}

// firstDropRest judges only first fragments, and drops all others.
type firstDropRest struct{}

func (firstDropRest) take(d *direction, f *tun.Frame) {
	if d.parsed.Fragment.Offset > 0 {
		d.drop(f, verdict.FragmentMode)
		return
	}
	d.judgeFrame(f)
}

// dropFragments drops every fragment.
type dropFragments struct{}

func (dropFragments) take(d *direction, f *tun.Frame) { d.drop(f, verdict.FragmentMode) }

// sheds reports whether to drop a fragment before it costs anything, because the lane is late,
// or was late when others of its datagram arrived.
func (d *direction) sheds() bool {
	return d.shedding.Sheds(&d.parsed, d.ingress.side, d.late, d.arrival())
}
