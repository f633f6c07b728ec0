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
