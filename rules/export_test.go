package rules

import (
	"maps"
)

// Contract has every key of the configuration, by table. Top has the keys outside tables.
var (
	Contract = contract
	Top      = top
)

// The bounds on a text.
const (
	MaxText     = maxText
	MaxDepth    = maxDepth
	MaxParts    = maxParts
	MaxKey      = maxKey
	MaxScalar   = maxScalar
	MaxRules    = maxRules
	MaxInRule   = maxInRule
	MaxOutside  = maxOutside
	MaxExpected = maxExpected
	MaxMistakes = maxMistakes

	MaxSetFiles  = maxSetFiles
	MaxSetBytes  = maxSetBytes
	MaxAddresses = maxAddresses
)

// DecodePieces decodes a text as Parse does, and joins the pieces. It reports whether the
// text is within the bounds.
func DecodePieces(text string) (values map[string]any, mistake *Mistake, within bool) {
	o, b := cut(text)
	if b.broken() {
		return nil, &Mistake{Line: b.line, Text: b.mistake}, false
	}
	values, mistake = read(o.frame, 1)
	if mistake != nil {
		return nil, o.first(mistake), true
	}
	if len(o.pieces) == 0 {
		return values, nil, true
	}
	r := &report{}
	headed, _ := values["rule"].([]map[string]any)
	var all []map[string]any
	at := o.place.key("rule").items
	for _, p := range o.pieces {
		some, mistake := read(p.text, p.line)
		if mistake != nil {
			return nil, mistake, true
		}
		rules := some["rule"].([]map[string]any)
		if p.last {
			t := table{report: r, values: rules[len(rules)-1], place: &place{}}
			t.adopt(table{values: headed[0], place: at[0]})
			headed, at = headed[1:], at[1:]
		}
		all = append(all, rules...)
	}
	values = maps.Clone(values)
	values["rule"] = all
	return values, r.syntax, true
}

// DecodeWhole decodes a text as a whole.
func DecodeWhole(text string) (values map[string]any, mistake *Mistake) { return read(text, 1) }
