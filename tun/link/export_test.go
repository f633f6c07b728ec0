package link

import (
	"encoding/json"
	"errors"
	"testing"

	"fragwall/tun"
	"fragwall/tun/lab"
	"fragwall/tun/tap"
)

// TestImport hands a junction to another process, for each method and state of the NIC. That
// process finds the wire intact, repairs a redirect, detaches the NIC, and restores the state.
func TestImport(t *testing.T) {
	eachJoin(t, func(bridge string) error { return handOver(t, bridge) })
}

func handOver(t *testing.T, bridge string) error {
	tap, err := tap.Open(tun.Config{Name: "fw-in", MTU: 1400, Queues: 1})
	if err != nil {
		return err
	}
	first, err := Join(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1400})
	if err != nil {
		return err
	}
	text, err := json.Marshal(first.Export())
	if err != nil {
		return err
	}
	var e Exported
	if err := json.Unmarshal(text, &e); err != nil {
		return err
	}
	j, err := Import(e)
	if err != nil {
		return err
	}
	if intact, err := j.Intact(); !intact || err != nil || j.NIC != first.NIC || j.Redirected() != first.Redirected() {
		t.Errorf("%+v became %+v: intact %v, %v", first, j, intact, err)
	}
	if j.Redirected() {
		for _, r := range j.redirectsOf(j.NIC) {
			if err := errors.Join(r.Remove(), j.Repair()); err != nil {
				t.Error(err)
			}
		}
		if intact, err := j.Intact(); !intact || err != nil {
			t.Errorf("repaired: intact %v, %v", intact, err)
		}
	}
	if err := j.Detach(); err != nil {
		t.Error(err)
	}
	if intact, err := j.Intact(); intact || err != nil {
		t.Errorf("detached: intact %v, %v", intact, err)
	}
	return errors.Join(j.Close(), j.Close(), tap.Close())
}

// TestImportOther checks that Import refuses a junction without the steps to undo it, or with
// unknown ones.
func TestImportOther(t *testing.T) {
	whole := Exported{NIC: 1, TAP: 2, Before: nicState{up: true}.mark(), Steps: []step{{Kind: stepRestore, Device: 1}}}
	if _, err := Import(whole); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Exported){
		"no state":     func(e *Exported) { e.Before = 0 },
		"no steps":     func(e *Exported) { e.Steps = nil },
		"kept":         func(e *Exported) { e.Kept = 2 },
		"unknown step": func(e *Exported) { e.Steps = []step{{Kind: "tunnel"}} },
	} {
		e := whole
		change(&e)
		if _, err := Import(e); err == nil {
			t.Errorf("%s: imported", name)
		}
	}
}
