package wire

import (
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
)

// fragmentMode decides what becomes of fragments. All directions share it.
type fragmentMode interface {
	// take decides on the frame with the fragment that a direction decoded last:
	// it settles or drops it, unless it keeps a copy.
	take(d *direction, f *tun.Frame)
}

var (
	_ fragmentMode = reassembly{}
	_ fragmentMode = validation{}
	_ fragmentMode = firstAcceptRest{}
	_ fragmentMode = firstDropRest{}
	_ fragmentMode = dropFragments{}
)

// newFragmentMode returns what a configuration does with fragments, and the
// table where they wait; nil where none does.
func newFragmentMode(c *Config) (fragmentMode, *stack.Table) {
	switch c.Mode {
	case packet.ModeReassemble:
		r := stack.NewReassembler(c.Fragments)
		return reassembly{r, c.Emit}, r.Table
	case packet.ModeValidate:
		if c.FastPath != nil {
			c.Fragments.Begun = c.FastPath.Passed
		}
		v := stack.NewValidator(c.Fragments)
		return validation{v}, v.Table
	case packet.ModeFirstAcceptRest:
		return firstAcceptRest{}, nil
	case packet.ModeFirstDropRest:
		return firstDropRest{}, nil
	}
	return dropFragments{}, nil
}

// firstAcceptRest judges first fragments alone, and accepts all others.
type firstAcceptRest struct{}

func (firstAcceptRest) take(d *direction, f *tun.Frame) {
	if d.parsed.Fragment.Offset > 0 {
		d.settle(f, filter.Verdict{Action: verdict.Accept}, false)
		return
	}
	d.judgeFrame(f)
}

// firstDropRest judges first fragments alone, and drops all others.
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

// maxUncredited is how many fragments of sources without credit are taken in of
// a batch while the lane is late: enough for a datagram of the largest size in
// fragments of 1,480 bytes, so that a new sender can earn some, and less than
// any batch of a lane that is behind.
const maxUncredited = 48

// sheds reports whether a lane that is late drops a fragment before it costs
// anything: one that its source has credit for is taken in as always, of the
// others only so many as cost little. To look at a fragment like this
// takes a tenth of what it takes to take it in.
func (d *direction) sheds(table *stack.Table) bool {
	if table.Spend(&d.parsed, d.ingress.side) {
		return false
	}
	d.batch.uncredited++
	return d.batch.uncredited > maxUncredited
}
