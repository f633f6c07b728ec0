package rules_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// TestBadExpectations compares the mistakes of each file in testdata/expect with the
// expected text.
func TestBadExpectations(t *testing.T) {
	t.Chdir("testdata/expect")
	files, err := filepath.Glob("*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(file, ".toml"), func(t *testing.T) {
			_, err := rules.LoadExpectations(file)
			var mistakes *rules.Errors
			if !errors.As(err, &mistakes) {
				t.Fatalf("got %v, want mistakes", err)
			}
			compare(t, strings.TrimSuffix(file, ".toml")+".txt", mistakes.Error()+"\n")
		})
	}
}

// TestExpectations reads each field of an expectation.
func TestExpectations(t *testing.T) {
	const text = "\ufeff" + `
[[expect]]
name = "dns"
from = "outside"
protocol = "udp"
src = "2001:db8::1"
dst = "2001:db8::2"
src_port = 1053
dst_port = "53"
vlan = 7
fragmented = true
source_route = true
verdict = "reject"
rule = ""

[[expect]]
from = "inside"
protocol = 1
src = "10.0.0.1"
dst = "10.0.0.2"
icmp_type = 3
icmp_code = 4
verdict = "accept"
rule = "too big"

[[expect]]
from = "inside"
protocol = "tcp"
src = "10.0.0.1"
dst = "10.0.0.2"
verdict = "drop"
`
	all, err := rules.ParseExpectations("x.toml", text)
	if err != nil || len(all) != 3 {
		t.Fatalf("%d expectations: %v", len(all), err)
	}
	none, tooBig := "", "too big"
	for i, want := range []struct {
		line    int
		name    string
		verdict verdict.Action
		rule    *string
		view    packet.View
	}{
		{2, "dns", verdict.Reject, &none, packet.View{From: verdict.Outside, Parsed: &packet.Parsed{
			Kind: packet.IPv6, Src: netip.MustParseAddr("2001:db8::1"), Dst: netip.MustParseAddr("2001:db8::2"), HopLimit: 255,
			Protocol: 17, Transport: packet.Ports, SrcPort: 1053, DstPort: 53, Fragmented: true, SourceRoute: true,
			TagCount: 1, Tags: [2]packet.Tag{{TPID: 0x8100, TCI: 7}},
		}}},
		{16, "", verdict.Accept, &tooBig, packet.View{Parsed: &packet.Parsed{
			Kind: packet.IPv4, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), HopLimit: 255,
			Protocol: 1, Transport: packet.ICMP, ICMPType: 3, ICMPCode: 4,
		}}},
		{26, "", verdict.Drop, nil, packet.View{Parsed: &packet.Parsed{
			Kind: packet.IPv4, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), HopLimit: 255,
			Protocol: 6, Transport: packet.Ports, SrcPort: 49152,
		}}},
	} {
		got := all[i]
		if got.Line != want.line || got.Name != want.name || got.Verdict != want.verdict || (got.Rule == nil) != (want.rule == nil) || got.Rule != nil && *got.Rule != *want.rule {
			t.Errorf("expectation %d: %+v", i, got)
		}
		if got.Datagram.From != want.view.From || fmt.Sprintf("%+v", *got.Datagram.Parsed) != fmt.Sprintf("%+v", *want.view.Parsed) {
			t.Errorf("expectation %d: %+v %+v\nwant %+v", i, got.Datagram.From, *got.Datagram.Parsed, *want.view.Parsed)
		}
	}
}

// TestManyExpectations refuses a file with too many keys and values.
func TestManyExpectations(t *testing.T) {
	text := strings.Repeat("[[expect]]\n", rules.MaxExpected+1)
	_, err := rules.ParseExpectations("x.toml", text)
	want := fmt.Sprintf("x.toml:%d: more than %d keys and values", rules.MaxExpected+1, rules.MaxExpected)
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// FuzzExpectations checks that every mistake has a line of the file, and a text of one
// line.
func FuzzExpectations(f *testing.F) {
	files, _ := filepath.Glob("testdata/expect/*.toml")
	for _, file := range append(files, "../examples/expect/resolver.toml") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := rules.ParseExpectations("x.toml", text)
		if err == nil {
			for _, e := range all {
				if e.Datagram == nil || e.Line < 1 || e.Datagram.Src.Is4() != e.Datagram.Dst.Is4() {
					t.Errorf("%+v", e)
				}
			}
			if len(all) == 0 {
				t.Error("neither an expectation nor an error")
			}
			return
		}
		checkMistakes(t, err, text)
	})
}
