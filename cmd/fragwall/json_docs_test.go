package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"fragwall/cmd/fragwall/internal/events"
	"fragwall/cmd/fragwall/internal/explain"
	"fragwall/cmd/fragwall/internal/history"
	"fragwall/cmd/fragwall/internal/inspect"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/record"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/cmd/fragwall/internal/status"
	"fragwall/fastpath"
	"fragwall/filter"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun"
	"fragwall/tun/tuntest"
	"fragwall/wire"
)

// documentedTypes are the types that docs/json.md documents, by heading. The fields of an
// embedded type are documented in the table of that type.
var documentedTypes = map[string]reflect.Type{
	"Decision":     reflect.TypeFor[record.Decision](),
	"Event":        reflect.TypeFor[record.Event](),
	"Status":       reflect.TypeFor[report.Report](),
	"Takeover":     reflect.TypeFor[report.Takeover](),
	"Side":         reflect.TypeFor[report.Side](),
	"Fragments":    reflect.TypeFor[report.Fragments](),
	"Flows":        reflect.TypeFor[report.Flows](),
	"Fast path":    reflect.TypeFor[report.FastPath](),
	"Fast frames":  reflect.TypeFor[report.FastPathSide](),
	"Policy":       reflect.TypeFor[report.Policy](),
	"Rule":         reflect.TypeFor[report.Rule](),
	"Explanation":  reflect.TypeFor[explain.Answer](),
	"Near":         reflect.TypeFor[explain.Near](),
	"Live answer":  reflect.TypeFor[explain.LiveAnswer](),
	"Fast entry":   reflect.TypeFor[explain.FastPath](),
	"Limit":        reflect.TypeFor[explain.Limit](),
	"Expectation":  reflect.TypeFor[explain.Result](),
	"Expected":     reflect.TypeFor[explain.Expected](),
	"Flow":         reflect.TypeFor[listing.Flow](),
	"Flow count":   reflect.TypeFor[inspect.Counted](),
	"Deletion":     reflect.TypeFor[inspect.Deleted](),
	"Waiting":      reflect.TypeFor[listing.Waiting](),
	"Source":       reflect.TypeFor[listing.Source](),
	"History":      reflect.TypeFor[status.History](),
	"Point":        reflect.TypeFor[history.Point](),
	"Past side":    reflect.TypeFor[history.Side](),
	"Flow list":    reflect.TypeFor[status.FlowList](),
	"Waiting list": reflect.TypeFor[status.WaitingList](),
	"Source list":  reflect.TypeFor[status.SourceList](),
}

// documentedField is one row of a table in docs/json.md.
type documentedField struct {
	name, kind, unit string
	always           bool
}

var (
	jsonHeading = regexp.MustCompile("^##+ (.*)\n$")
	jsonRow     = regexp.MustCompile("^\\| `(\\w+)` \\| ([^|]+) \\| ([^|]*)\\| ([^|]+) \\| [^|]+ \\|\n$")
)

// documentedFields returns the tables of docs/json.md by heading.
func documentedFields(t *testing.T) map[string][]documentedField {
	t.Helper()
	page, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	tables, heading := map[string][]documentedField{}, ""
	for line := range strings.Lines(string(page)) {
		if m := jsonHeading.FindStringSubmatch(line); m != nil {
			heading = m[1]
		}
		if m := jsonRow.FindStringSubmatch(line); m != nil {
			tables[heading] = append(tables[heading], documentedField{m[1], m[2], strings.TrimSpace(m[3]), m[4] == "always"})
		} else if strings.HasPrefix(line, "| `") && len(tables[heading]) > 0 {
			t.Errorf("cannot parse row: %s", line)
		}
	}
	return tables
}

// fieldsOf returns the JSON fields of a type, without those of embedded types that have a table
// of their own.
func fieldsOf(t *testing.T, of reflect.Type) (fields []documentedField) {
	for f := range of.Fields() {
		tag := f.Tag.Get("json")
		switch {
		case f.Anonymous && slices.Contains(mapped(), f.Type), tag == "-", !f.IsExported():
			continue
		case f.Anonymous:
			fields = append(fields, fieldsOf(t, f.Type)...)
			continue
		case tag == "":
			t.Errorf("field %[2]s of %[1]v has no JSON name", of, f.Name)
		}
		name, option, _ := strings.Cut(tag, ",")
		fields = append(fields, documentedField{name: name, kind: kindOf(t, f.Type), always: option == ""})
	}
	return fields
}

// mapped returns the types that have a table.
func mapped() (types []reflect.Type) {
	for _, of := range documentedTypes {
		types = append(types, of)
	}
	return types
}

// kindOf returns the name that docs/json.md uses for a type.
func kindOf(t *testing.T, of reflect.Type) string {
	switch {
	case of == reflect.TypeFor[time.Time]():
		return "time"
	case of == reflect.TypeFor[netip.Addr]():
		return "address"
	case strings.HasPrefix(of.Name(), "Optional["):
		return kindOf(t, of.Field(0).Type)
	}
	switch of.Kind() {
	case reflect.Pointer:
		return kindOf(t, of.Elem())
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		return "list of " + kindOf(t, of.Elem()) + "s"
	case reflect.Map, reflect.Struct:
		return "object"
	case reflect.Int, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	}
	t.Errorf("no name for type %v", of)
	return ""
}

// TestJSONDocument checks that the tables of docs/json.md match the types.
func TestJSONDocument(t *testing.T) {
	tables := documentedFields(t)
	for heading, of := range documentedTypes {
		want := fieldsOf(t, of)
		got := slices.Clone(tables[heading])
		for i := range got {
			checkUnit(t, heading, got[i])
			got[i].unit = ""
		}
		if !slices.Equal(got, want) {
			t.Errorf("the table %q has\n%+v\nwant\n%+v", heading, got, want)
		}
	}
	for heading := range tables {
		if documentedTypes[heading] == nil {
			t.Errorf("no type for the table %q", heading)
		}
	}
}

// checkUnit checks that a field whose name ends in a unit is documented with that unit.
func checkUnit(t *testing.T, heading string, f documentedField) {
	t.Helper()
	name := strings.TrimSuffix(f.name, "_limit")
	for _, unit := range []string{"bytes", "seconds", "frames", "packets", "datagrams"} {
		if (name == unit || strings.HasSuffix(name, "_"+unit)) && f.unit != unit {
			t.Errorf("%s: %s has the unit %q", heading, f.name, f.unit)
		}
	}
}

// checkDocumented checks that a JSON object has only documented fields, that their values have
// the documented types, and that every field documented as "always" is present.
func checkDocumented(t *testing.T, object []byte, fields ...documentedField) {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal(object, &got); err != nil {
		t.Fatalf("%s: %v", object, err)
	}
	for _, f := range fields {
		value, present := got[f.name]
		delete(got, f.name)
		if present && !isKind(value, f.kind) || f.always && !present {
			t.Errorf("%s: %s is missing or not of type %s", object, f.name, f.kind)
		}
	}
	for name := range got {
		t.Errorf("%s: %s is not documented", object, name)
	}
}

// isKind reports whether a value has a type that docs/json.md names.
func isKind(value any, kind string) bool {
	text, _ := value.(string)
	switch kind {
	case "time":
		_, err := time.Parse(time.RFC3339Nano, text)
		return err == nil
	case "address":
		a, err := netip.ParseAddr(text)
		return err == nil && a.String() == text
	case "integer":
		n, ok := value.(float64)
		return ok && n == float64(int64(n))
	case "number":
		_, ok := value.(float64)
		return ok
	case "string":
		return text != ""
	case "boolean":
		_, ok := value.(bool)
		return ok
	case "object":
		_, ok := value.(map[string]any)
		return ok
	}
	list, ok := value.([]any)
	of, isList := strings.CutPrefix(kind, "list of ")
	return ok && isList && !slices.ContainsFunc(list, func(v any) bool { return !isKind(v, strings.TrimSuffix(of, "s")) })
}

// TestJSONOfReplay checks the decisions of all golden files of replay against docs/json.md. All
// fields of a decision must occur, except those of limits.
func TestJSONOfReplay(t *testing.T) {
	fields := documentedFields(t)["Decision"]
	seen := map[string]bool{}
	results, err := filepath.Glob("testdata/replay/*.txt")
	if err != nil || len(results) == 0 {
		t.Fatal(err)
	}
	for _, path := range results { // TestReplayGolden compares these files with the program
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, lines, _ := strings.Cut(string(text), "\nverdicts:\n")
		for line := range strings.Lines(lines) {
			checkDocumented(t, []byte(line), fields...)
			for _, f := range fields {
				seen[f.name] = seen[f.name] || strings.Contains(line, `"`+f.name+`":`)
			}
		}
	}
	for _, f := range fields {
		if !seen[f.name] && f.name != "over_limit" {
			t.Errorf("no case has the field %s", f.name)
		}
	}
}

// statusOf returns the answer of /api/status from a box that dropped a frame and whose link
// went down.
func statusOf(t *testing.T) []byte {
	t.Helper()
	recorder := events.NewRecorder(slog.DiscardHandler, rules.All)
	end := wire.SideConfig{Lanes: []tun.Lane{tuntest.Discard}, MTU: 1500}
	policy := &filter.Policy{Stateful: true, Rules: []filter.Rule{{Name: "few", Line: 7, Limit: filter.Rate{Count: 1, Per: time.Second}}}}
	s := wire.NewStepper(wire.Config{Sides: [verdict.Sides]wire.SideConfig{end, end}, Policy: policy, Observer: recorder})
	defer s.Close()
	s.Forward(verdict.Inside, tun.Frame{Data: packettest.UDP(client4, server4, nil).Frame()}, began)
	recorder.Link("outside", "eth1", false, began)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	recorder.Run(ended)
	source := report.Source{
		Build: report.Build{Version: version, Go: "go", GVisor: "v"}, Devices: [verdict.Sides]string{"fw-in", "fw-out"}, Bump: s.Bump, Events: recorder, Started: began, Takeover: &report.Takeover{Count: 1, Time: began},
		Ready: func() bool { return true },
		Links: func() [verdict.Sides]report.Link {
			l := report.Link{NIC: "eth1", Joined: true, Up: true, MTU: 1500, Speed: 1e9}
			return [verdict.Sides]report.Link{l, l}
		},
		Missed: func() map[verdict.Side]uint64 { return map[verdict.Side]uint64{verdict.Inside: 1} },
		FastPath: func() report.FastPath {
			return report.OfFastPath(&fastpath.Stats{}, [verdict.Sides]uint64{}).TurnedOff(report.OffRights, os.ErrPermission)
		},
		Policy: func() report.Policy { return report.Policy{Default: "drop", Kept: &began, Mistake: "x.toml:1: no"} },
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(t.Context())
	var server errgroup.Group
	server.Go(func() error { return status.NewServer(&source, nil, "").Serve(serving, l) })
	defer func() {
		if stop(); server.Wait() != nil {
			t.Error("the status server failed")
		}
	}()
	stdout, stderr, code := runCommand(t, "status", "--json", "--address", l.Addr().String())
	if code != 0 {
		t.Fatal(stderr)
	}
	return []byte(stdout)
}

// TestJSONOfStatus checks the output of status against docs/json.md.
func TestJSONOfStatus(t *testing.T) {
	tables := documentedFields(t)
	text := statusOf(t)
	checkDocumented(t, text, tables["Status"]...)
	var parts struct {
		Sides                    map[string]json.RawMessage
		Rules, Events            []json.RawMessage
		Fragments, Flows, Policy json.RawMessage
		FastPath                 json.RawMessage `json:"fast_path"`
	}
	if err := json.Unmarshal(text, &parts); err != nil || len(parts.Events) != 2 {
		t.Fatalf("%s: %v", text, err)
	}
	var fastPath struct{ Sides map[string]json.RawMessage }
	if err := json.Unmarshal(parts.FastPath, &fastPath); err != nil {
		t.Fatal(err)
	}
	for heading, object := range map[string]json.RawMessage{"Side": parts.Sides["inside"], "Rule": parts.Rules[0], "Fragments": parts.Fragments, "Flows": parts.Flows, "Policy": parts.Policy, "Fast path": parts.FastPath, "Fast frames": fastPath.Sides["inside"]} {
		checkDocumented(t, object, tables[heading]...)
	}
	checkDocumented(t, parts.Events[1], slices.Concat(tables["Decision"], tables["Event"])...)
	link := slices.Clone(tables["Event"])
	for _, f := range tables["Decision"] {
		if f.name == "time" || f.name == "from" {
			link = append(link, f)
		}
	}
	checkDocumented(t, parts.Events[0], link...)
}

// TestJSONOfExplain checks the output of explain against docs/json.md.
func TestJSONOfExplain(t *testing.T) {
	tables := documentedFields(t)
	t.Chdir(t.TempDir())
	writeFile(t, "x.toml", explained)
	for _, args := range []string{
		"--from inside --proto udp --src 10.0.0.1 --dst 192.0.2.1 --dport 53 --vlan 5",
		"--from outside --proto icmp --src 10.0.0.1 --dst 192.0.2.1",
		"--from outside --proto udp --src 10.0.0.1 --dst 192.0.2.1 --dport 53 --fragmented",
	} {
		stdout, stderr, code := runCommand(t, append(strings.Fields("explain -c x.toml --json"), strings.Fields(args)...)...)
		if code != 0 {
			t.Fatal(stderr)
		}
		checkDocumented(t, []byte(stdout), tables["Explanation"]...)
		var answer struct{ Near []json.RawMessage }
		if err := json.Unmarshal([]byte(stdout), &answer); err != nil {
			t.Fatal(err)
		}
		for _, near := range answer.Near {
			checkDocumented(t, near, tables["Near"]...)
		}
	}
}
