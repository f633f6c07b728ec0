package handover

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nicObjects returns the addresses, routes and neighbours that the NIC has at first.
func nicObjects() []message {
	return []message{
		address(nicIndex, "192.0.2.5/24"),
		address(nicIndex, "192.0.2.6/32"),
		address(nicIndex, "2001:db8::5/64"),
		route(nicIndex, "2001:db8::/64", "", unix.RT_TABLE_MAIN),
		route(nicIndex, "0.0.0.0/0", "192.0.2.1", unix.RT_TABLE_MAIN),
		route(nicIndex, "::/0", "2001:db8::1", unix.RT_TABLE_MAIN),
		route(nicIndex, "198.51.100.0/24", "192.0.2.2", 100),
		neighbor(nicIndex, "192.0.2.1", "02:00:00:00:00:aa", unix.NUD_STALE),
		neighbor(nicIndex, "2001:db8::1", "02:00:00:00:00:aa", unix.NUD_PERMANENT),
	}
}

// read returns the state of the fake's NIC.
func read(t *testing.T, f *fake) *State {
	t.Helper()
	s := &State{NIC: "eth0"}
	if err := s.read(f); err != nil {
		t.Fatal(err)
	}
	return s
}

func nothing() error { return nil }

// covered fails the test if neither the NIC nor the TAP has an address or a route.
func covered(t *testing.T, f *fake, want []string) func() {
	return func() {
		t.Helper()
		has := append(f.has(nicIndex), f.has(tapIndex)...)
		for _, w := range want {
			if !strings.HasPrefix(w, "neighbour") && !slices.Contains(has, w) {
				t.Fatalf("after %d changes no device has %s", f.changes, w)
			}
		}
	}
}

func TestMove(t *testing.T) {
	f := newFake(t, nicObjects()...)
	had := f.has(nicIndex)
	f.check = covered(t, f, had)
	s := read(t, f)
	joined := false
	_, err := s.move(f, "fw-in", func() error {
		joined = true
		if got := lines(f.has(tapIndex)); !strings.Contains(got, "192.0.2.5") || !strings.Contains(got, "neighbour 192.0.2.1") {
			t.Errorf("at the join the TAP has\n%s", got)
		}
		return nil
	})
	if err != nil || !joined {
		t.Fatalf("joined: %v, %v", joined, err)
	}
	if got := f.has(tapIndex); !slices.Equal(got, had) {
		t.Errorf("the TAP has\n%s\nwant\n%s", lines(got), lines(had))
	}
	if left := f.has(nicIndex); len(left) > 0 {
		t.Errorf("the NIC still has\n%s", lines(left))
	}
}

// TestMoveFails makes each change fail in turn. Move must change nothing after the failure, and
// Return must restore the NIC.
func TestMoveFails(t *testing.T) {
	for n := 1; ; n++ {
		f := newFake(t, nicObjects()...)
		had := f.has(nicIndex)
		f.check = covered(t, f, had)
		s := read(t, f)
		f.failAt = n
		_, err := s.move(f, "fw-in", nothing)
		if err == nil && f.changes < n {
			break
		}
		if !errors.Is(err, errFake) || f.after > 0 {
			t.Fatalf("change %d fails: %v, and %d changes after it", n, err, f.after)
		}
		f.repair()
		detached := false
		if err := s.restore(f, "fw-in", func() error { detached = true; return nil }); err != nil || !detached {
			t.Fatalf("change %d failed: detached: %v, %v", n, detached, err)
		}
		if got := f.has(nicIndex); !slices.Equal(got, had) {
			t.Fatalf("change %d failed: the NIC has\n%s\nwant\n%s", n, lines(got), lines(had))
		}
	}
}

// TestMoveWithoutJoin checks that the NIC keeps its routes if it cannot be joined.
func TestMoveWithoutJoin(t *testing.T) {
	f := newFake(t, nicObjects()...)
	had := f.has(nicIndex)
	if _, err := read(t, f).move(f, "fw-in", func() error { return errFake }); !errors.Is(err, errFake) {
		t.Fatal(err)
	}
	if got := f.has(nicIndex); !slices.Equal(got, had) {
		t.Errorf("the NIC has\n%s\nwant\n%s", lines(got), lines(had))
	}
}
