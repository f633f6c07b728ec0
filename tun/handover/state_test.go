package handover

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// withLinks is a [fake] with additional devices.
type withLinks struct {
	*fake
	more []netlink.Link
}

func (w withLinks) links() ([]netlink.Link, error) {
	list, err := w.fake.links()
	return append(list, w.more...), err
}

// TestSuitable checks NICs that cannot become part of a wire.
func TestSuitable(t *testing.T) {
	attributes := func(change func(*netlink.LinkAttrs)) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name, a.Index, a.EncapType, a.NetNsID = "nic", 5, "ether", -1
		change(&a)
		return a
	}
	plain := attributes(func(*netlink.LinkAttrs) {})
	child := attributes(func(a *netlink.LinkAttrs) { a.Name, a.Index, a.ParentIndex = "child", 6, 5 })
	elsewhere := child
	elsewhere.NetNsID = 3
	for name, c := range map[string]struct {
		nic  netlink.Link
		more netlink.Link
		want string
	}{
		"plain":           {&netlink.Dummy{LinkAttrs: plain}, nil, ""},
		"no Ethernet":     {&netlink.Dummy{LinkAttrs: attributes(func(a *netlink.LinkAttrs) { a.EncapType = "none" })}, nil, "is not an Ethernet interface"},
		"ipvlan":          {&netlink.IPVlan{LinkAttrs: plain}, nil, "has type ipvlan, which receives only packets for its own addresses: use macvlan or veth"},
		"vlan on it":      {&netlink.Dummy{LinkAttrs: plain}, &netlink.Vlan{LinkAttrs: child}, `carries "child" (vlan), which would no longer receive frames: remove it`},
		"of another host": {&netlink.Dummy{LinkAttrs: plain}, &netlink.Macvlan{LinkAttrs: elsewhere}, ""},
	} {
		k := withLinks{fake: newFake(t)}
		if c.more != nil {
			k.more = append(k.more, c.more)
		}
		got := ""
		if err := suitable(k, c.nic); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestSummary(t *testing.T) {
	s := read(t, newFake(t, append(nicObjects(), neighbor(nicIndex, "192.0.2.9", "02:00:00:00:00:bb", unix.NUD_PERMANENT))...))
	if got, want := s.Summary(), "addresses: 3, routes: 6, neighbours: 3"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
