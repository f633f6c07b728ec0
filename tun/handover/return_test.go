package handover

import (
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun/netdev"
)

// changeTAP changes the TAP as interfaces change in use: an address fails over, another one is
// added, the gateway is replaced.
func changeTAP(t *testing.T, f *fake) {
	t.Helper()
	secondary := address(tapIndex, "192.0.2.7/24")
	secondary.setNumber(unix.IFA_FLAGS, unix.IFA_F_SECONDARY)
	for _, change := range []struct {
		operation int
		m         message
	}{
		{unix.RTM_DELADDR, address(tapIndex, "192.0.2.6/32")},
		{unix.RTM_NEWADDR, address(tapIndex, "203.0.113.7/24")},
		{unix.RTM_NEWADDR, secondary},
		{unix.RTM_DELROUTE, route(tapIndex, "0.0.0.0/0", "192.0.2.1", unix.RT_TABLE_MAIN)},
		{unix.RTM_NEWROUTE, route(tapIndex, "0.0.0.0/0", "192.0.2.254", unix.RT_TABLE_MAIN)},
		{unix.RTM_NEWROUTE, route(tapIndex, "10.0.0.0/8", "203.0.113.1", 200)},
		{unix.RTM_DELROUTE, route(tapIndex, "198.51.100.0/24", "192.0.2.2", 100)},
		{unix.RTM_DELNEIGH, neighbor(tapIndex, "2001:db8::1", "02:00:00:00:00:aa", unix.NUD_PERMANENT)},
		{unix.RTM_NEWNEIGH, neighbor(tapIndex, "192.0.2.254", "02:00:00:00:00:bb", unix.NUD_PERMANENT)},
	} {
		if err := f.send(change.operation, unix.NLM_F_CREATE, change.m); err != nil {
			t.Fatal(err)
		}
	}
}

// changed returns a fake whose TAP has other objects than the NIC had.
func changed(t *testing.T) (*fake, *State) {
	t.Helper()
	f := newFake(t, nicObjects()...)
	s := read(t, f)
	if _, err := s.move(f, "fw-in", nothing); err != nil {
		t.Fatal(err)
	}
	changeTAP(t, f)
	return f, s
}

// TestReturnWhatTAPHas checks that the NIC gets what the TAP has at the end.
func TestReturnWhatTAPHas(t *testing.T) {
	f, s := changed(t)
	want := f.has(tapIndex)
	f.check = covered(t, f, want)
	if err := s.restore(f, "fw-in", nothing); err != nil {
		t.Fatal(err)
	}
	if got := f.has(nicIndex); !slices.Equal(got, want) {
		t.Errorf("the NIC has\n%s\nwant\n%s", lines(got), lines(want))
	}
}

// TestReturnFails makes each change fail in turn. Return must change nothing after the failure, and
// a second Return must succeed, also without the TAP.
func TestReturnFails(t *testing.T) {
	for n := 1; ; n++ {
		f, s := changed(t)
		want := f.has(tapIndex)
		f.check = covered(t, f, want)
		f.changes, f.failAt = 0, n
		err := s.restore(f, "fw-in", nothing)
		if err == nil && f.changes < n {
			break
		}
		if !errors.Is(err, errFake) || f.after > 0 {
			t.Fatalf("change %d fails: %v, and %d changes after it", n, err, f.after)
		}
		f.repair()
		f.check = func() {}
		f.devices = slices.DeleteFunc(f.devices, func(d *netlink.Dummy) bool { return d.Index == tapIndex })
		f.objects = slices.DeleteFunc(f.objects, func(m message) bool {
			uses, _ := usesDevice(m, tapIndex)
			return uses || m.kind == unix.RTM_NEWADDR && addressIndex(m) == tapIndex || m.kind == unix.RTM_NEWNEIGH && neighborIndex(m) == tapIndex
		})
		if err := s.restore(f, "fw-in", nothing); err != nil {
			t.Fatal(err)
		}
		if got := f.has(nicIndex); !slices.Equal(got, want) {
			t.Fatalf("change %d failed: the NIC has\n%s\nwant\n%s", n, lines(got), lines(want))
		}
	}
}

// TestReturnStopsBeforeDetach checks that the NIC stays in the wire while it lacks its routes.
func TestReturnStopsBeforeDetach(t *testing.T) {
	for n := 1; ; n++ {
		f, s := changed(t)
		f.changes, f.failAt = 0, n
		detached := 0
		err := s.restore(f, "fw-in", func() error { detached = f.changes; return nil })
		if err == nil && f.changes < n {
			break
		}
		if detached >= n {
			t.Errorf("change %d failed, but the NIC was detached", n)
		}
	}
}

// TestReturnByIndex checks that Return finds a NIC that was renamed, and one that was replaced.
func TestReturnByIndex(t *testing.T) {
	for name, c := range map[string]struct {
		change func(nic *netlink.Dummy)
		index  int // of the device that has everything then; 0: none
	}{
		"renamed":            {func(nic *netlink.Dummy) { nic.Name = "net1" }, nicIndex},
		"replaced":           {func(nic *netlink.Dummy) { nic.Index = 17 }, 17},
		"another":            {func(nic *netlink.Dummy) { nic.Index, nic.HardwareAddr = 17, net.HardwareAddr{2, 0, 0, 0, 0, 17} }, 0},
		"removed":            {func(nic *netlink.Dummy) { nic.Index, nic.Name = 17, "other" }, 0},
		"with another's MAC": {func(nic *netlink.Dummy) { nic.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0, 17} }, nicIndex},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := changed(t)
			want := f.has(tapIndex)
			for _, d := range f.devices {
				if d.Index == nicIndex {
					c.change(d)
				}
			}
			err := s.restore(f, "fw-in", nothing)
			if c.index == 0 {
				if got := f.has(tapIndex); !errors.Is(err, netdev.ErrMissing) || !slices.Equal(got, want) {
					t.Errorf("%v; the TAP has\n%s", err, lines(got))
				}
				return
			}
			if got := f.has(c.index); err != nil || !slices.Equal(got, want) {
				t.Errorf("%v; the NIC has\n%s\nwant\n%s", err, lines(got), lines(want))
			}
		})
	}
}

// TestAdopt moves to the TAP what was added to the NIC after the move.
func TestAdopt(t *testing.T) {
	f := newFake(t, nicObjects()...)
	s := read(t, f)
	if _, err := s.move(f, "fw-in", nothing); err != nil {
		t.Fatal(err)
	}
	if adopted, err := s.adopt(f, "fw-in"); err != nil || len(adopted) > 0 {
		t.Errorf("adopted %q, %v", adopted, err)
	}
	before := f.has(tapIndex)
	for _, m := range []message{
		address(nicIndex, "203.0.113.7/24"),
		route(nicIndex, "10.0.0.0/8", "203.0.113.1", unix.RT_TABLE_MAIN),
		neighbor(nicIndex, "203.0.113.1", "02:00:00:00:00:cc", unix.NUD_PERMANENT),
	} {
		if err := f.send(int(m.kind), unix.NLM_F_CREATE, m); err != nil {
			t.Fatal(err)
		}
	}
	given := f.has(nicIndex)
	f.check = covered(t, f, append(before, given...))
	if adopted, err := s.adopt(f, "fw-in"); err != nil || len(adopted) != 3 {
		t.Errorf("adopted %q, %v", adopted, err)
	}
	if left := f.has(nicIndex); len(left) > 0 {
		t.Errorf("the NIC still has\n%s", lines(left))
	}
	for _, g := range given {
		if !slices.Contains(f.has(tapIndex), g) {
			t.Errorf("the TAP lacks %s", g)
		}
	}
}
