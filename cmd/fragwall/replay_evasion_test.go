package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"fragwall/packet/packettest"
	"fragwall/packet/packettest/evasion"
)

// TestReplayEvasion replays the catalogue of attacks and honest traffic in the modes that
// protect against them. No hostile frame may leave, and every host must receive the expected
// datagrams.
func TestReplayEvasion(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, mode := range []string{"reassemble", "validate"} {
		writeFile(t, "policy.toml", "[inside]\ntap = \"a\"\n[outside]\ntap = \"b\"\n[fragments]\nmode = \""+mode+"\"\n"+evasion.Policy)
		for _, c := range evasion.Cases() {
			for family, frames := range c.Frames {
				if frames != nil {
					t.Run(mode+"/"+c.Name+"/"+evasion.Family(family).String(), func(t *testing.T) {
						replayEvasion(t, c.Delivers, frames)
					})
				}
			}
		}
	}
}

func replayEvasion(t *testing.T, delivers int, frames []evasion.Frame) {
	var arrivals []packettest.Arrival
	hostile := map[string]bool{}
	for _, f := range frames {
		arrivals = append(arrivals, packettest.Arrival{At: f.At, From: f.From, Data: f.Data})
		if f.Hostile {
			hostile[string(f.Data)] = true
		}
	}
	writeCapture(t, "in", arrivals)
	code, verdicts, stderr := run(strings.Fields("replay -c policy.toml --inside-interface 0 --outside-interface 1 -o out --json in")...)
	if code != 0 {
		t.Fatal(stderr)
	}
	checkVerdicts(t, verdicts, len(frames))
	file, err := os.Open("out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	left, _ := readFrames(t, file)
	var passed []evasion.Frame
	for _, f := range left {
		if hostile[string(f.Data)] {
			t.Errorf("a hostile frame left: % x", f.Data)
		}
		passed = append(passed, evasion.Frame{At: f.Time.Sub(began), Data: slices.Clone(f.Data)})
	}
	for _, host := range evasion.Hosts() {
		if got := len(host.Receive(passed)); got < delivers {
			t.Errorf("%s received %d datagrams, want %d", host.Name, got, delivers)
		}
	}
}
