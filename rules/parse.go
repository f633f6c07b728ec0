package rules

import (
	"fmt"

	"fragwall/packet/verdict"
)

// Load reads a configuration file by [ReadFile]. If the file could be read, the error is
// an [*Errors].
func Load(path string) (*Config, error) { return LoadBy(path, ReadWithin) }

// LoadBy is [Load] with another way to read files.
func LoadBy(path string, read Reader) (*Config, error) {
	text, err := read(path, maxText, readTimeout)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return parse(path, text, read)
}

// Parse reads the text of a configuration; name is the file's name, for messages. The
// error is an [*Errors].
func Parse(name string, text []byte) (*Config, error) { return parse(name, string(text), ReadWithin) }

func parse(name, text string, read Reader) (*Config, error) {
	r := &report{file: name, reading: newReading(read)}
	c := r.parse(text)
	if err := r.err(); err != nil {
		return nil, err
	}
	c.Notes, c.Files, c.sets = r.sortedNotes(), r.files, r.sets
	return c, nil
}

// parse reads a text. The result is valid only if no mistake was reported.
func (r *report) parse(text string) *Config {
	o, bounds := cut(text)
	if bounds.broken() {
		r.mistake(bounds.line, "%s", bounds.mistake)
		return nil
	}
	values, syntax := read(o.frame, 1)
	if syntax != nil {
		r.only(o.first(syntax))
		return nil
	}
	root := table{report: r, values: values, place: o.place}
	checkNames(root)
	return config(root, o)
}

// first returns the first of the mistakes at which the decoder stops: that of the frame,
// or that of an earlier piece.
func (o *outline) first(frame *Mistake) *Mistake {
	for _, p := range o.pieces {
		if p.line >= frame.Line {
			break
		}
		if _, syntax := read(p.text, p.line); syntax != nil && syntax.Line <= frame.Line {
			return syntax
		}
	}
	return frame
}

// config reads the values of a file. The result is valid only if no mistake was reported.
func config(root table, o *outline) *Config {
	inside := root.side(verdict.Inside, "fw-in")
	outside := root.side(verdict.Outside, "fw-out")
	checkDevices(inside, outside)
	noteMTUs(inside, outside)
	exit := Exit(root.field("on_exit").choice(string(ExitBlock), exits))
	if exit == ExitBypass && (inside.NIC == "" || outside.NIC == "") {
		root.field("on_exit").note("\"bypass\" joins the two nics, but there are not two; add nic to [inside] and [outside]")
	}
	policy := readPolicy(root.table("policy"))
	fragments := readFragments(root.table("fragments"))
	policy.Rules = readRules(root, o, &ruleReader{sets: readSets(root), fragments: fragments.Mode})
	return &Config{
		File:       root.report.file,
		Inside:     inside.Interface,
		Outside:    outside.Interface,
		Fragments:  fragments,
		Policy:     policy,
		Log:        readLog(root.table("log")),
		Status:     readStatus(root.table("status")),
		OnExit:     exit,
		OnLinkDown: LinkDown(root.field("on_link_down").choice(string(LinkHold), downs)),
		FastPath:   FastPath(root.field("fast_path").choice(string(FastPathAuto), paths)),
	}
}

// side reads [inside] or [outside]. Both are required.
func (t table) side(s verdict.Side, example string) side {
	name := s.String()
	if !t.field(name).set() {
		t.report.mistake(1, "table [%s] is missing; add [%s] with tap = %q", name, name, example)
	}
	own := t.table(name)
	return side{table: own, Interface: readInterface(own, example)}
}
