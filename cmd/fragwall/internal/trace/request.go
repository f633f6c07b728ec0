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

// Request says which decisions a client wants, and what of them. It is sent as JSON.
type Request struct {
	Selector  selector.Selector `json:"selector,omitempty"` // of what was decided on
	Forwarded bool              `json:"forwarded,omitempty"`
	Dropped   bool              `json:"dropped,omitempty"` // neither: all
	Reasons   []string          `json:"reasons,omitempty"` // of drops; none: any
	Rule      string            `json:"rule,omitempty"`    // that decided; "" for any
	// SnapLength is how many bytes of each frame are wanted; 0: no frames.
	SnapLength int  `json:"snap_length,omitempty"`
	Records    bool `json:"records,omitempty"` // JSON of the decisions is wanted
}

// wantsShed reports whether what the devices refuse may be among what is wanted: nothing
// is known of it but that it was dropped.
func (r *Request) wantsShed() bool {
	return !r.Forwarded && r.Rule == "" && (len(r.Reasons) == 0 || slices.Contains(r.Reasons, verdict.FragmentShed.String()))
}

// MaxSnapLength is the most that a frame has, in bytes.
const MaxSnapLength = 262144

// ReasonNames returns the names of the reasons of drops.
func ReasonNames() []string {
	var names []string
	for reason := verdict.Passed + 1; int(reason) < verdict.Reasons; reason++ {
		names = append(names, reason.String())
	}
	return names
}

// matcher matches the decisions of a request.
type matcher struct {
	filter   *selector.Filter
	accepted bool                  // decisions by which frames passed
	reasons  [verdict.Reasons]bool // of the others
	rule     string                // "" for any
}

// matcher returns what matches the request, or what is wrong with it.
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

// Check finds what is wrong with the request.
func (r *Request) Check() error {
	_, err := r.matcher()
	return err
}

// near says which names have a wrong one in them, if any has.
func near(wrong string, names []string) string {
	with := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return wrong == "" || !strings.Contains(name, wrong) })
	if len(with) == 0 {
		return "; they are " + strings.Join(names, ", ")
	}
	return "; did you mean " + strings.Join(with, " or ") + "?"
}

// decided reports whether a verdict matches, which a table gave; nil where none did.
func (m *matcher) decided(t *filter.Table, v filter.Verdict) bool {
	switch {
	case v.Action == verdict.Accept && !m.accepted, v.Action != verdict.Accept && !m.reasons[v.Reason]:
		return false
	case m.rule == "":
		return true
	}
	return t != nil && v.Rule != 0 && t.Rule(v.Rule).Name == m.rule
}

// may reports whether a packet matches if it came in by the right side.
func (m *matcher) may(p *packet.Parsed) bool {
	return m.packet(p, verdict.Inside) || m.packet(p, verdict.Outside)
}

// flow reports whether packets of a flow may match. A key without VLANs does not say
// that they are in none: flows may be the same in any.
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

// packet reports whether a packet matches that came in by a side.
func (m *matcher) packet(p *packet.Parsed, from verdict.Side) bool {
	t := selector.TupleOf(p, from)
	return m.filter.Matches(&t)
}
