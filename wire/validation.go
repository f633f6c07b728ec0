package wire

import (
	"fragwall/filter"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
)

// validation judges the first fragment of a datagram, and applies the verdict to the others.
// Those that arrive before it are held.
type validation struct{ stack.Validator }

func (m *validation) take(d *direction, f *tun.Frame) {
	if d.sheds() {
		d.drop(f, verdict.FragmentShed)
		return
	}
	claim, why := m.Claim(f.Data, &d.parsed, d.ingress.side, d.arrival())
	switch {
	case why != verdict.Passed:
		d.drop(f, why)
	case claim.Waits:
	case claim.First():
		d.viewFrame(f)
		v := d.policy().Judge(&d.view, d.clock)
		if d.ingress.fastPath != nil && v.Has(filter.Cacheable) && v.Action == verdict.Accept {
			d.learn(v)
		}
		waited := m.Settle(claim, v.Reason)
		d.settle(f, v, true)
		if waited != nil {
			d.follow(waited)
		}
	default:
		d.settle(f, filter.Verdict{Action: verdict.Accept}, false)
	}
}

// follow adds the fragments that were held for a first one to the batch, after it.
func (d *direction) follow(waited *stack.Datagram) {
	v := filter.Verdict{Action: verdict.Accept}
	if to := d.wants(v); to != nil {
		d.reportDatagram(to, v, waited)
	}
	d.batch.addFragments(waited)
	d.batch.countDatagram(waited)
	d.batch.reports.hold(waited)
}
