package handover

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// parse reads a message from annotated hex: what follows a # on a line is for
// people. Numbers are little-endian, as the machines that the tests run on.
func parse(t testing.TB, kind uint16, annotated string) message {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(annotated) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	body, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseMessage(kind, body)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// slaac is 2001:db8:3::5/64, from a router.
const slaac = `
	0a 40 00 00 02000000          # AF_INET6, /64, no flags, universe, device 2
	1400 0100 20010db8000300000000000000000005  # IFA_ADDRESS
	1400 0600 08070000 100e0000 01000000 02000000  # IFA_CACHEINFO: preferred 1800, valid 3600
	0800 0800 00010000            # IFA_FLAGS: mngtmpaddr
	0500 0b00 02000000            # IFA_PROTO: from a router`

// peer is 192.0.2.9, across from 192.0.2.10.
const peer = `
	02 20 80 fd 02000000          # AF_INET, /32, permanent, link, device 2
	0800 0100 c000020a            # IFA_ADDRESS
	0800 0200 c0000209            # IFA_LOCAL`

// learntDefault is a default route from a router's advertisement.
const learntDefault = `
	0a 00 00 00 fe 09 00 01 00000000  # AF_INET6, table 254, proto ra, universe, unicast
	0800 0f00 fe000000            # RTA_TABLE
	1400 0500 fe800000000000000000000000000001  # RTA_GATEWAY
	0800 0400 02000000            # RTA_OIF: device 2
	0800 0600 00040000            # RTA_PRIORITY: 1024
	1400 0800 0800 0a00 40000000 0800 0200 dc050000  # RTA_METRICS: hoplimit 64, mtu 1500
	2400 0c00 00000000 00000000 20bf0200 00000000 00000000 00000000 00000000 00000000  # RTA_CACHEINFO: expires in 1800 s
	0500 1400 01000000            # RTA_PREF: high`

// shared leads by devices 2 and 1.
const shared = `
	02 18 00 00 fe 03 00 01 00000000  # AF_INET, /24, table 254, proto boot, unicast
	0800 0f00 fe000000            # RTA_TABLE
	0800 0100 cb007100            # RTA_DST 203.0.113.0
	2400 0900                     # RTA_MULTIPATH
	1000 10 01 02000000  0800 0500 0af40101  # linkdown, weight 2, device 2, via 10.244.1.1
	1000 04 00 01000000  0800 0500 0af40106  # onlink, weight 1, device 1, via 10.244.1.6`

func TestMessageSurvivesText(t *testing.T) {
	for name, m := range map[string]message{
		"address": parse(t, unix.RTM_NEWADDR, slaac),
		"route":   parse(t, unix.RTM_NEWROUTE, learntDefault),
	} {
		text, err := m.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back message
		if err := back.UnmarshalText(text); err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("%s: %v\n%+v\n%+v", name, err, m, back)
		}
	}
}

func TestMalformedText(t *testing.T) {
	for _, text := range []string{"", "AA==", "!", "FAAC", "EAAA"} {
		if err := new(message).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for a message", text)
		}
	}
}

func TestAddressLivesOn(t *testing.T) {
	m := parse(t, unix.RTM_NEWADDR, slaac)
	later, alive := addressFor(m, 7, 600)
	if got, want := addressWords(later), "2001:db8:3::5/64 mngtmpaddr valid_lft 3000 preferred_lft 1200"; !alive || got != want {
		t.Errorf("alive %v, %s; want %s", alive, got, want)
	}
	if addressIndex(later) != 7 || addressIndex(m) != 2 {
		t.Errorf("devices %d and %d", addressIndex(later), addressIndex(m))
	}
	if got := addressWords(m); !strings.Contains(got, "valid_lft 3600") {
		t.Errorf("the original changed: %s", got)
	}
	deprecated, alive := addressFor(m, 7, 2000)
	if got, want := addressWords(deprecated), "2001:db8:3::5/64 mngtmpaddr valid_lft 1600 preferred_lft 0"; !alive || got != want {
		t.Errorf("alive %v, %s; want %s", alive, got, want)
	}
	if _, alive := addressFor(m, 7, 3600); alive {
		t.Error("it outlives its lifetime")
	}
}

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

func TestRouteLeadsElsewhere(t *testing.T) {
	devices := func(index int) string { return string(rune('a' + index)) }
	for _, test := range []struct {
		route string
		age   uint32
		want  string
	}{
		{learntDefault, 0, "default via fe80::1 dev h proto ra metric 1024 expires 1800"},
		{learntDefault, 1000, "default via fe80::1 dev h proto ra metric 1024 expires 800"},
		{learntDefault, 1800, ""},
		{shared, 5000, "203.0.113.0/24 nexthop via 10.244.1.1 dev h weight 2 nexthop via 10.244.1.6 dev b onlink weight 1"},
	} {
		got := ""
		if m, alive := routeFor(parse(t, unix.RTM_NEWROUTE, test.route), 2, 7, test.age); alive {
			got = routeWords(m, devices)
			if flags := m.header[rtmFlags]; flags != 0 {
				t.Errorf("flags %#x", flags)
			}
		}
		if got != test.want {
			t.Errorf("after %d s:\n%s\nwant\n%s", test.age, got, test.want)
		}
	}
	if uses, err := usesDevice(parse(t, unix.RTM_NEWROUTE, shared), 1); !uses || err != nil {
		t.Errorf("the second next hop does not count: %v", err)
	}
}

func TestRouteKeyIgnoresTime(t *testing.T) {
	now := parse(t, unix.RTM_NEWROUTE, learntDefault)
	later := parse(t, unix.RTM_NEWROUTE, strings.Replace(learntDefault, "20bf0200", "10000000", 1))
	other := parse(t, unix.RTM_NEWROUTE, strings.Replace(learntDefault, "00040000", "01040000", 1))
	if routeKey(now) != routeKey(later) {
		t.Error("with time it becomes another route")
	}
	if routeKey(now) == routeKey(other) {
		t.Error("a route of another metric is the same")
	}
}

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

// FuzzMessage has any bytes taken for a message of any kind.
func FuzzMessage(f *testing.F) {
	for kind, text := range map[uint16]string{unix.RTM_NEWADDR: slaac, unix.RTM_NEWROUTE: shared} {
		f.Add(kind, parse(f, kind, text).body())
	}
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		m, err := parseMessage(kind, body)
		if err != nil {
			return
		}
		again, err := parseMessage(kind, m.body())
		if err != nil || again.key() != m.key() {
			t.Fatalf("%v\n%+v\n%+v", err, m, again)
		}
		switch kind {
		case unix.RTM_NEWADDR:
			later, _ := addressFor(m, 7, 1)
			_ = addressWords(later)
		case unix.RTM_NEWROUTE:
			if _, err := usesDevice(m, 2); err == nil {
				later, _ := routeFor(m, 2, 7, 1)
				_ = routeWords(later, func(int) string { return "eth0" })
				if isAdvertised(later) {
					_ = advertisement(later, nil)
				}
			}
		case unix.RTM_NEWNEIGH:
			_ = neighborWords(neighborFor(m, 7))
		}
	})
}
