package rules

import (
	"fmt"
	"strings"
	"unicode"
)

// maxName is the longest name of a Linux device in bytes (IFNAMSIZ, which includes the
// terminating byte).
const maxName = 15

// The MTUs that the kernel accepts for a TAP (drivers/net/tun.c: from ETH_MIN_MTU to
// 65,535 less the Ethernet header), and the smallest one for IPv6 (RFC 8200 §5).
const (
	minMTU     = 68
	maxMTU     = 65521
	minMTUIPv6 = 1280
)

// StandardMTU is the MTU in bytes of a side without a NIC, if the configuration sets
// none.
const StandardMTU = 1500

// maxQueues is the maximum number of queues of a TAP (MAX_TAP_QUEUES).
const maxQueues = 256

// readInterface reads one side. Messages use the example for its TAP.
func readInterface(t table, example string) Interface {
	i := Interface{
		NIC:     t.field("nic").device("eth1"),
		Bridge:  t.field("bridge").device(example + "-br"),
		Queues:  int(t.field("queues").number(0, 0, maxQueues)),
		Offload: t.field("offload").boolean(true),
	}
	if tap := t.field("tap"); tap.set() {
		i.TAP = tap.device(example)
	} else if t.values != nil {
		tap.fail("missing; add tap = %q", example)
	}
	t.joinNIC(&i)

	mtu := t.field("mtu")
	if mtu.set() || i.NIC == "" {
		i.MTU = int(mtu.number(StandardMTU, minMTU, maxMTU))
	}
	if i.MTU != 0 && i.MTU < minMTUIPv6 {
		mtu.note("IPv6 needs at least %d", minMTUIPv6)
	}
	return i
}

// joinNIC checks how the NIC is joined, and names the bridge if the file does not. A
// bridge name in the file implies a bridge.
func (t table) joinNIC(i *Interface) {
	nic, bridge, join := t.field("nic"), t.field("bridge"), t.field("join")
	standard := "redirect"
	if bridge.set() {
		standard = "bridge"
	}
	if join.choice(standard, []string{"redirect", "bridge"}) == "bridge" {
		i.Join = JoinBridge
	}
	for key, f := range map[string]field{"bridge": bridge, "join": join} {
		if f.set() && !nic.set() {
			f.fail("it joins the TAP to a nic, but there is no nic; add nic, or remove %s", key)
		}
	}
	switch {
	case !nic.set():
	case i.Join == JoinRedirect && bridge.set():
		bridge.fail("a redirect uses no bridge; remove bridge, or set join = \"bridge\"")
	case i.Join == JoinBridge && !bridge.set() && i.TAP != "":
		i.Bridge = i.TAP + "-br"
		if len(i.Bridge) > maxName {
			nic.fail("the default name of the bridge, %q, has %d bytes, but device names have at most %d; set bridge to a shorter name",
				i.Bridge, len(i.Bridge), maxName)
		}
	}
}

// device returns the field's device name, "" if it is not set or invalid.
func (f field) device(example string) string {
	name := f.text("", example)
	if _, ok := f.value.(string); !ok {
		return ""
	}
	if err := checkDevice(name); err != nil {
		f.fail("%v, such as %q", err, example)
		return ""
	}
	return name
}

// checkDevice returns an error for a device name that the kernel refuses (net/core/dev.c,
// dev_valid_name), and for '%', which would make the kernel choose a name.
func checkDevice(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the name is empty; want a device name")
	case name == "." || name == "..":
		return fmt.Errorf("%q is not a valid device name; want another name", name)
	case len(name) > maxName:
		return fmt.Errorf("%s has %d bytes; want a name of at most %d", quote(name), len(name), maxName)
	}
	bad := strings.IndexFunc(name, func(c rune) bool {
		return strings.ContainsRune("/:%", c) || unicode.IsSpace(c) || !unicode.IsPrint(c)
	})
	if bad >= 0 {
		c := []rune(name[bad:])[0]
		return fmt.Errorf("%q contains %q, which device names cannot; want letters, digits, '-', '_' or '.'", name, c)
	}
	return nil
}

// noteMTUs adds a note if the MTUs are known without the NICs and differ.
func noteMTUs(inside, outside side) {
	if inside.MTU == 0 || outside.MTU == 0 || inside.MTU == outside.MTU {
		return
	}
	const why = "packets longer than the smaller mtu cannot leave by that side"
	ofInside, ofOutside := inside.field("mtu"), outside.field("mtu")
	switch {
	case ofInside.set() && ofOutside.set():
		ofOutside.note("%d, but inside.mtu is %d at line %d: %s", outside.MTU, inside.MTU, ofInside.place.line, why)
	case ofOutside.set():
		ofOutside.note("%d, but inside.mtu is %d by default: %s", outside.MTU, inside.MTU, why)
	default:
		ofInside.note("%d, but outside.mtu is %d by default: %s", inside.MTU, outside.MTU, why)
	}
}

// side is the configuration of a side and the table that it was read from.
type side struct {
	table
	Interface
}

// checkDevices reports devices with equal names.
func checkDevices(sides ...side) {
	owners := make(map[string]field)
	for _, s := range sides {
		for _, device := range []struct{ key, name string }{{"tap", s.TAP}, {"nic", s.NIC}, {"bridge", s.Bridge}} {
			if device.name == "" {
				continue
			}
			f := s.field(device.key)
			if owner, taken := owners[device.name]; taken {
				f.fail("%q is also %s at line %d; want a different name", device.name, owner.name, owner.place.line)
				continue
			}
			owners[device.name] = f
		}
	}
}
