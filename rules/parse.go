package rules

import (
	"fmt"
	"os"

	"fragwall/packet"
)

// Load reads a configuration file. The error is [*Errors] if the file could
// be read.
func Load(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, text)
}

// Parse reads the text of a configuration; name is the file's, for messages.
// The error is [*Errors].
func Parse(name string, text []byte) (*Config, error) {
	r := &report{file: name}
	root := table{report: r, values: r.decode(string(text))}
	if err := r.err(); err != nil {
		return nil, err
	}
	root.place = locate(string(text))
	checkNames(root)
	c := config(root)
	if err := r.err(); err != nil {
		return nil, err
	}
	c.Notes, c.Files = r.sortedNotes(), r.files
	return c, nil
}

// config reads the values of a file. What it returns is valid only if no
// mistake was reported.
func config(root table) *Config {
	inside := root.side(packet.Inside, "fw-in")
	outside := root.side(packet.Outside, "fw-out")
	checkDevices(inside, outside)
	exit := Exit(root.field("on_exit").choice(string(ExitBlock), exits))
	if exit == ExitBypass && (inside.NIC == "" || outside.NIC == "") {
		root.field("on_exit").note("\"bypass\" joins the two nics, and there are none; it acts with a nic in [inside] and [outside]")
	}
	policy := readPolicy(root.table("policy"))
	policy.Rules = readRules(root, readSets(root))
	fragments := readFragments(root.table("fragments"))
	if fragments.Mode == packet.ModeDrop {
		root.noteFragmented()
	}
	return &Config{
		File:      root.report.file,
		Inside:    inside.Interface,
		Outside:   outside.Interface,
		Fragments: fragments,
		Policy:    policy,
		Log:       readLog(root.table("log")),
		Status:    readStatus(root.table("status")),
		OnExit:    exit,
	}
}

// noteFragmented remarks on rules about what is dropped before any rule.
func (t table) noteFragmented() {
	for _, rule := range t.tables("rule") {
		if f := rule.field("fragmented"); f.value == true {
			f.note("fragments.mode \"drop\" lets no fragment come to a rule, so this one never matches")
		}
	}
}

// side reads [inside] or [outside], neither of which may be missing.
func (t table) side(s packet.Side, example string) side {
	name := s.String()
	if !t.field(name).set() {
		t.report.mistake(1, "table [%s] is missing; add [%s] with tap = %q", name, name, example)
	}
	own := t.table(name)
	return side{table: own, Interface: readInterface(own, example)}
}
