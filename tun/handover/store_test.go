package handover

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStore(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "states")
	s, err := NewStore(directory, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if state, err := s.Load(); state != nil || err != nil {
		t.Errorf("before the first Save: %v, %v", state, err)
	}
	namespace, err := CurrentNamespace()
	if err != nil {
		t.Fatal(err)
	}
	want := &State{Namespace: namespace, NIC: "eth0", Index: 2, MAC: "02:00:00:00:00:01", MTU: 1500, Taken: 5, IPv6: true,
		TAPs: []string{"fw-in", "fw-out"}, Bridge: "fw-br", Addresses: []message{parse(t, unix.RTM_NEWADDR, slaac)}}
	for range 2 { // the second one replaces the first one
		if err := s.Save(want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Load(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v\n%+v", err, got, want)
	}
	if info, err := os.Stat(s.Path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v", info.Mode(), err)
	}

	other := *want
	other.Namespace.Boot = "another boot"
	if err := s.Save(&other); err != nil {
		t.Fatal(err)
	}
	if state, err := s.Load(); state != nil || err != nil {
		t.Errorf("in another namespace: %v, %v", state, err)
	}

	aside, err := s.SetAside()
	if err != nil || aside != s.Path()+".orphaned" {
		t.Errorf("set aside as %q: %v", aside, err)
	}
	if _, err := s.SetAside(); err == nil {
		t.Error("a second SetAside succeeds")
	}
	if err := os.Remove(aside); err != nil {
		t.Error(err)
	}

	if err := os.WriteFile(s.Path(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(); err == nil {
		t.Error("half a file is accepted as a state")
	}
	for range 2 {
		if err := s.Remove(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(directory); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
