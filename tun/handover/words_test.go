package handover

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPlanNamesPeer(t *testing.T) {
	s := &State{NIC: "eth0", Index: 2, MAC: "02:00:00:00:00:01", MTU: 1500, Addresses: []message{parse(t, unix.RTM_NEWADDR, peer)}}
	got := strings.Join(s.Plan("fw-in", "# join"), "\n")
	want := `ip link set fw-in address 02:00:00:00:00:01 mtu 1500
ip addr add 192.0.2.9 peer 192.0.2.10/32 scope link dev fw-in
# join
ip addr del 192.0.2.9 peer 192.0.2.10/32 dev eth0`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestPlan plans a move with each kind of object.
func TestPlan(t *testing.T) {
	proxy := neighbor(nicIndex, "192.0.2.8", "00:00:00:00:00:00", 0)
	proxy.header[ndmFlags] = unix.NTF_PROXY
	s := &State{
		NIC: "eth0", Index: nicIndex, MAC: "02:00:00:00:00:02", MTU: 9000,
		Addresses: []message{address(nicIndex, "192.0.2.5/24"), address(nicIndex, "2001:db8::5/64")},
		Routes: []message{
			route(nicIndex, "0.0.0.0/0", "192.0.2.1", unix.RT_TABLE_MAIN),
			route(nicIndex, "2001:db8:1::/48", "2001:db8::1", 100),
		},
		Neighbors: []message{neighbor(nicIndex, "192.0.2.1", "02:00:00:00:00:aa", unix.NUD_PERMANENT), proxy},
	}
	got := strings.Join(s.Plan("fw-in", "# join"), "\n")
	want := `ip link set fw-in address 02:00:00:00:00:02 mtu 9000
ip addr add 192.0.2.5/24 dev fw-in
ip addr add 2001:db8::5/64 dev fw-in
ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:aa nud permanent dev fw-in
ip neigh replace proxy 192.0.2.8 dev fw-in
# join
ip route append default via 192.0.2.1 dev fw-in
ip -6 route append 2001:db8:1::/48 via 2001:db8::1 dev fw-in table 100
ip -6 route del 2001:db8:1::/48 via 2001:db8::1 dev eth0 table 100
ip route del default via 192.0.2.1 dev eth0
ip addr del 2001:db8::5/64 dev eth0
ip addr del 192.0.2.5/24 dev eth0
ip neigh del 192.0.2.1 dev eth0
ip neigh del proxy 192.0.2.8 dev eth0`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
