package handover

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

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
		t.Errorf("the second next hop is ignored: %v", err)
	}
}

func TestRouteKeyIgnoresTime(t *testing.T) {
	now := parse(t, unix.RTM_NEWROUTE, learntDefault)
	later := parse(t, unix.RTM_NEWROUTE, strings.Replace(learntDefault, "20bf0200", "10000000", 1))
	other := parse(t, unix.RTM_NEWROUTE, strings.Replace(learntDefault, "00040000", "01040000", 1))
	if routeKey(now) != routeKey(later) {
		t.Error("the key changes with the lifetime")
	}
	if routeKey(now) == routeKey(other) {
		t.Error("a route with another metric has the same key")
	}
}
