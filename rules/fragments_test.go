package rules_test

import (
	"fmt"
	"strings"
	"testing"

	"fragwall/packet"
	"fragwall/rules"
)

// TestModes parses every mode with every value of emit, and checks the notes about them.
func TestModes(t *testing.T) {
	for mode := range packet.Mode(packet.Modes) {
		for emit := range packet.Emit(packet.Emits) {
			text := fmt.Sprintf("[inside]\ntap = \"a\"\n[outside]\ntap = \"b\"\n[fragments]\nmode = %q\nemit = %q\n", mode, emit)
			c, err := rules.Parse("x.toml", []byte(text))
			if err != nil {
				t.Fatalf("%v, %v: %v", mode, emit, err)
			}
			if c.Fragments.Mode != mode || c.Fragments.Emit != emit {
				t.Errorf("%v, %v: read as %v, %v", mode, emit, c.Fragments.Mode, c.Fragments.Emit)
			}
			var notes []string
			for _, n := range c.Notes {
				notes = append(notes, n.String())
			}
			told := strings.Join(notes, "\n")
			if got, want := strings.Contains(told, "x.toml:6: note: fragments.mode: "), mode == packet.ModeFirstAcceptRest; got != want {
				t.Errorf("%v: warning: %v; want %v:\n%s", mode, got, want, told)
			}
			if got, want := strings.Contains(told, "x.toml:7: note: fragments.emit: "), emit == packet.EmitWhole && mode != packet.ModeReassemble; got != want {
				t.Errorf("%v, %v: note: %v; want %v:\n%s", mode, emit, got, want, told)
			}
		}
	}
}

// TestUnusedFragmentRules checks the notes on rules about fragments in modes in which rules never
// see fragments.
func TestUnusedFragmentRules(t *testing.T) {
	for mode := range packet.Mode(packet.Modes) {
		c := parse(t, fmt.Sprintf("[fragments]\nmode = %q\n[[rule]]\nname = \"a\"\naction = \"drop\"\nfragmented = true\n"+
			"[[rule]]\nname = \"b\"\naction = \"drop\"\nfragmented = false\n", mode))
		var told []string
		for _, n := range c.Notes {
			if strings.HasPrefix(n.Text, "fragmented: ") {
				told = append(told, fmt.Sprint(n.Line))
			}
		}
		if got, want := strings.Join(told, " "), map[bool]string{true: "10"}[mode == packet.ModeDrop]; got != want {
			t.Errorf("%v: notes at %q, want %q", mode, got, want)
		}
	}
}

// TestDefaultMode parses a file without fragment keys.
func TestDefaultMode(t *testing.T) {
	c, err := rules.Parse("x.toml", []byte("[inside]\ntap = \"a\"\n[outside]\ntap = \"b\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Fragments.Mode != packet.ModeReassemble || c.Fragments.Emit != packet.EmitOriginal {
		t.Errorf("%v, %v", c.Fragments.Mode, c.Fragments.Emit)
	}
}
