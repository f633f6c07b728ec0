package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"fragwall/packet"
)

// maxTimeout is the longest deadline of a datagram. RFC 1122 §3.3.2 asks for 60 to 120 s.
// Linux uses 30 s for IPv4 and 60 s for IPv6.
const maxTimeout = time.Hour

// A datagram has at most 8,192 fragments: each begins at a multiple of 8 bytes, and the
// datagram ends within 65,535.
const maxFragments = 8192

// maxDatagrams limits the size of the fragment table.
const maxDatagrams = 1 << 24

// The limits of the memory for incomplete datagrams, in bytes.
const (
	minMemory      = 1 << 20
	standardMemory = 64 << 20
	maxMemory      = 1 << 40
)

// readFragments reads [fragments].
func readFragments(t table) Fragments {
	f := Fragments{
		Mode:         choiceOf(t.field("mode"), packet.ModeReassemble, modes),
		Emit:         choiceOf(t.field("emit"), packet.EmitOriginal, emits),
		TimeoutIPv4:  t.field("timeout_ipv4").duration(30 * time.Second),
		TimeoutIPv6:  t.field("timeout_ipv6").duration(60 * time.Second),
		Memory:       t.field("memory").memory(),
		MaxFragments: int(t.field("max_fragments").number(maxFragments, 2, maxFragments)),
		MaxDatagrams: int(t.field("max_datagrams").number(65536, 1, maxDatagrams)),
	}
	if f.Mode == packet.ModeFirstAcceptRest {
		t.field("mode").note("%q forwards all fragments but the first without a verdict, and so lets overlap attacks in; \"reassemble\" and \"validate\" do not", f.Mode)
	}
	if f.Emit == packet.EmitWhole && f.Mode != packet.ModeReassemble {
		t.field("emit").note("%q works only with mode = \"reassemble\": %q does not reassemble datagrams", f.Emit, f.Mode)
	}
	return f
}

// The choices of [fragments], in the order in which messages name them.
var (
	modes = []packet.Mode{packet.ModeReassemble, packet.ModeValidate, packet.ModeDrop,
		packet.ModeFirstAcceptRest, packet.ModeFirstDropRest}
	emits = []packet.Emit{packet.EmitOriginal, packet.EmitWhole}
)

// choiceOf returns the choice that the field's string names, or the default.
func choiceOf[T fmt.Stringer](f field, standard T, choices []T) T {
	names := make([]string, len(choices))
	for i, c := range choices {
		names[i] = c.String()
	}
	return choices[slices.Index(names, f.choice(standard.String(), names))]
}

// duration returns the field's duration, or the default.
func (f field) duration(standard time.Duration) time.Duration {
	switch v := f.value.(type) {
	case nil:
		return standard
	case int64:
		if v > 0 {
			f.fail("%s without a unit; did you mean \"%ds\"?", f.kind(), v)
			return standard
		}
	case string:
		d, err := time.ParseDuration(v)
		switch {
		case err != nil && decimal(v):
			f.fail("%s has no unit; did you mean \"%ss\"?", quote(v), v)
		case err != nil:
			f.fail("%s is not a duration; want a number and a unit (ms, s or m), such as \"30s\"", quote(v))
		case d <= 0 || d > maxTimeout:
			f.fail("%s is out of range; want more than 0 and at most \"1h\", such as \"30s\"", quote(v))
		default:
			return d
		}
		return standard
	}
	f.fail("%s; want a duration in a string, such as \"30s\"", f.kind())
	return standard
}

// memory returns the field's size in bytes, or the default.
func (f field) memory() int64 {
	var size int64
	switch v := f.value.(type) {
	case nil:
		return standardMemory
	case int64:
		size = v
	case string:
		var err error
		if size, err = parseSize(v); err != nil {
			f.fail("%v", err)
			return standardMemory
		}
	default:
		f.fail("%s; want a size in a string, such as \"64MiB\"", f.kind())
		return standardMemory
	}
	switch {
	case size < minMemory:
		f.fail("%s is too small; want \"1MiB\" or more, which holds 16 datagrams of the largest size", show(f.value))
	case size > maxMemory:
		f.fail("%s is too large; want at most \"1TiB\"", show(f.value))
	}
	return size
}

// decimal reports whether s is a number in decimal digits.
func decimal(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
