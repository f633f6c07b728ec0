package trace

import (
	"fmt"
	"slices"
	"strings"

	"fragwall/cmd/fragwall/internal/selector"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Request says which decisions a client wants, and which parts of them. It is sent as JSON.
type Request struct {
	Selector  selector.Selector `json:"selector,omitempty"` // of the packet
	Forwarded bool              `json:"forwarded,omitempty"`
	Dropped   bool              `json:"dropped,omitempty"` // without Forwarded and Dropped: all decisions
	Reasons   []string          `json:"reasons,omitempty"` // for drops; none: any
	Rule      string            `json:"rule,omitempty"`    // the rule that decided; "" for any
	// SnapLength is the maximum number of bytes per frame; 0 means no frames.
	SnapLength int  `json:"snap_length,omitempty"`
	Records    bool `json:"records,omitempty"` // whether to send the decisions as JSON
}

// wantsShed reports whether the request may match fragments that a device sheds. Of these, only
// the side and the reason are known.
func (r *Request) wantsShed() bool {
	return !r.Forwarded && r.Rule == "" && (len(r.Reasons) == 0 || slices.Contains(r.Reasons, verdict.FragmentShed.String()))
}

// MaxSnapLength is the maximum length of a frame in bytes.
const MaxSnapLength = 262144

// ReasonNames returns the names of all drop reasons.
func ReasonNames() []string {
	var names []string
	for reason := verdict.Passed + 1; int(reason) < verdict.Reasons; reason++ {
		names = append(names, reason.String())
	}
	return names
}

// matcher matches decisions against a request.
type matcher struct {
	filter   *selector.Filter
	accepted bool                  // whether accepted packets match
	reasons  [verdict.Reasons]bool // drop reasons that match
	rule     string                // "" for any
}

// matcher returns the matcher of the request, or an error if the request is invalid.
func (r *Request) matcher() (*matcher, error) {
	f, err := r.Selector.Filter()
	if err != nil {
		return nil, err
	}
	m := &matcher{filter: f, rule: r.Rule, accepted: !r.Dropped && len(r.Reasons) == 0}
	switch {
	case r.Forwarded && (r.Dropped || len(r.Reasons) > 0):
		return nil, fmt.Errorf("--forwarded is the opposite of --dropped and --reason")
	case r.SnapLength < 0 || r.SnapLength > MaxSnapLength:
		return nil, fmt.Errorf("--snaplen: %d bytes; want 0 to %d", r.SnapLength, MaxSnapLength)
	case r.Forwarded:
		return m, nil
	}
	names := ReasonNames()
	for i, name := range names {
		m.reasons[i+1] = len(r.Reasons) == 0 || slices.Contains(r.Reasons, name)
	}
	for _, name := range r.Reasons {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("--reason: %q is not a drop reason%s", name, near(name, names))
		}
	}
	return m, nil
}

// Check returns an error if the request is invalid.
func (r *Request) Check() error {
	_, err := r.matcher()
	return err
}

// near returns a hint about an unknown name: the names that contain it, or all names.
func near(wrong string, names []string) string {
	with := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return wrong == "" || !strings.Contains(name, wrong) })
	if len(with) == 0 {
		return "; they are " + strings.Join(names, ", ")
	}
	return "; did you mean " + strings.Join(with, " or ") + "?"
}

// decided reports whether a verdict matches. t is the table that decided, or nil if none did.
func (m *matcher) decided(t *filter.Table, v filter.Verdict) bool {
	switch {
	case v.Action == verdict.Accept && !m.accepted, v.Action != verdict.Accept && !m.reasons[v.Reason]:
		return false
	case m.rule == "":
		return true
	}
	return t != nil && v.Rule != 0 && t.Rule(v.Rule).Name == m.rule
}

// may reports whether a packet matches when its side is not known.
func (m *matcher) may(p *packet.Parsed) bool {
	return m.packet(p, verdict.Inside) || m.packet(p, verdict.Outside)
}

// flow reports whether packets of a flow may match. A key without VLANs may stand for packets
// in any VLAN.
func (m *matcher) flow(k *flow.Key) bool {
	f := m.filter
	if k.VLANs == 0 {
		f = f.InAnyVLAN()
	}
	for side := range verdict.Side(verdict.Sides) {
		var p packet.Parsed
		k.First(&p, side, false)
		t := selector.TupleOf(&p, side)
		t.HasProtocol = true
		if f.Matches(&t) {
			return true
		}
	}
	return false
}

// packet reports whether a packet that arrived on a side matches.
func (m *matcher) packet(p *packet.Parsed, from verdict.Side) bool {
	t := selector.TupleOf(p, from)
	return m.filter.Matches(&t)
}
