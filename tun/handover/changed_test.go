package handover

import (
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestChanged reads the kernel's messages about changes.
func TestChanged(t *testing.T) {
	multipath := parse(t, unix.RTM_NEWROUTE, shared)
	for name, c := range map[string]struct {
		kind uint16
		m    message
		want []int
	}{
		"address added":     {unix.RTM_NEWADDR, address(5, "192.0.2.1/24"), []int{5}},
		"address removed":   {unix.RTM_DELADDR, address(5, "2001:db8::1/64"), []int{5}},
		"route added":       {unix.RTM_NEWROUTE, route(6, "10.0.0.0/8", "192.0.2.1", 7), []int{6}},
		"route removed":     {unix.RTM_DELROUTE, route(6, "::/0", "2001:db8::1", 7), []int{6}},
		"several next hops": {unix.RTM_NEWROUTE, multipath, []int{2, 1}},
		"neighbour entered": {unix.RTM_NEWNEIGH, neighbor(7, "192.0.2.1", "02:00:00:00:00:01", unix.NUD_PERMANENT), []int{7}},
		"neighbour learnt":  {unix.RTM_NEWNEIGH, neighbor(7, "192.0.2.1", "02:00:00:00:00:01", unix.NUD_REACHABLE), nil},
		"asked for":         {unix.RTM_GETADDR, address(5, "192.0.2.1/24"), nil},
		"malformed":         {unix.RTM_NEWADDR, message{header: make([]byte, 3)}, nil},
	} {
		n := syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: c.kind}, Data: c.m.body()}
		if got := Changed(n); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
