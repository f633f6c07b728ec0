package handover

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAdvertisement(t *testing.T) {
	m := parse(t, unix.RTM_NEWROUTE, learntDefault)
	got := hex.EncodeToString(advertisement(m, []byte{2, 0, 0, 0, 0, 9}))
	want := strings.Join(strings.Fields(`
		333300000001 020000000001 86dd
		60000000 0020 3a ff fe800000000000000000000000000001 ff020000000000000000000000000001
		86 00 2728 40 08 0708 00000000 00000000
		01 01 020000000009
		05 01 0000 000005dc`), "")
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestAdvertisedRouteMoves checks that the TAP, and then the NIC again, learns a router's
// default route, or that the route is added if the device does not learn it.
func TestAdvertisedRouteMoves(t *testing.T) {
	learnt := parse(t, unix.RTM_NEWROUTE, learntDefault)
	learnt.remove(unix.RTA_CACHEINFO) // no lifetime, which would depend on the time that the test takes
	router := neighbor(nicIndex, "fe80::1", "02:00:00:00:00:09", unix.NUD_REACHABLE)
	for name, c := range map[string]struct {
		acceptRA string
		learns   *message
		sent     int // advertisements
	}{
		"learnt":       {"1", &learnt, 1},
		"not learnt":   {"1", nil, 1},
		"by a program": {"0", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, append(nicObjects(), learnt, router)...)
			f.values["ipv6/eth0/accept_ra"], f.learns = c.acceptRA, c.learns
			s := read(t, f)
			check := func(step string, index int) {
				want := slices.Repeat([][]byte{advertisement(learnt, []byte{2, 0, 0, 0, 0, 9})}, c.sent)
				if !slices.EqualFunc(f.advertisements, want, bytes.Equal) {
					t.Errorf("%s: device %d got\n% x\nwant\n% x", step, index, f.advertisements, want)
				}
				f.advertisements = nil
				for device, has := range map[int]bool{nicIndex: index == nicIndex, tapIndex: index == tapIndex} {
					m, _ := routeFor(learnt, nicIndex, device, 0)
					if found := f.find(m) >= 0; found != has {
						t.Errorf("%s: device %d has the route: %v", step, device, found)
					}
				}
			}
			if _, err := s.move(f, "fw-in", nothing); err != nil {
				t.Fatal(err)
			}
			check("moved", tapIndex)
			if err := s.restore(f, "fw-in", nothing); err != nil {
				t.Fatal(err)
			}
			check("returned", nicIndex)
		})
	}
}
