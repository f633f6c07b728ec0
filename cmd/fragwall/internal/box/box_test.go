package box_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/box/boxtest"
	"fragwall/cmd/fragwall/internal/events"
	"fragwall/filter"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun/netdev"
)

const twoNICs = `
[inside]
tap = "in"
nic = "nic-in"
[outside]
tap = "out"
nic = "nic-out"
`

func parse(t *testing.T, text string) *rules.Config {
	t.Helper()
	c, err := rules.Parse("x.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rig is a box with a watch on a kernel in memory.
type rig struct {
	*testing.T
	*box.Box
	kernel *boxtest.Kernel
	nics   [verdict.Sides]int // interface indices
	log    strings.Builder
	events *events.Recorder
	// meanwhile is called after handOver has imported the box, and before it suspends it.
	meanwhile func()
}

// watched opens a box and watches it until the end of the test, in a synctest bubble. change
// changes the watch; it may be nil.
func watched(t *testing.T, text string, change func(*box.Watch)) *rig {
	t.Helper()
	r := &rig{T: t, kernel: boxtest.New(), events: events.NewRecorder(slog.DiscardHandler, filter.Rate{})}
	r.nics = [verdict.Sides]int{r.kernel.AddNIC("nic-in", 1500), r.kernel.AddNIC("nic-out", 1500)}
	var err error
	if r.Box, err = box.Open(r.kernel.Box(), box.Setup{Config: parse(t, text), Log: slog.New(slog.NewTextHandler(&r.log, nil)), Observer: r.events}); err != nil {
		t.Fatal(err)
	}
	w := &box.Watch{Box: r.Box, Events: r.events}
	if change != nil {
		change(w)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { w.Run(ctx) })
	watching.Go(func() { r.events.Run(ctx) })
	synctest.Wait()
	t.Cleanup(func() {
		cancel()
		watching.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// link checks the state of a side's link.
func (r *rig) link(side verdict.Side, joined, up bool) {
	r.Helper()
	synctest.Wait()
	if l := r.Links()[side]; l.Joined != joined || l.Up != up {
		r.Errorf("%v is %+v, want joined %v, up %v\n%s", side, l, joined, up, &r.log)
	}
}

// logged checks that the log since the last call contains a text.
func (r *rig) logged(text string) {
	r.Helper()
	synctest.Wait()
	if !strings.Contains(r.log.String(), text) {
		r.Errorf("no %q in the log\n%s", text, &r.log)
	}
	r.log.Reset()
}

// TestOpen checks that Open creates the devices, and that CloseAndBypass removes them and makes
// a bypass if configured.
func TestOpen(t *testing.T) {
	for _, onExit := range []string{"block", "bypass"} {
		k := boxtest.New()
		k.AddNIC("nic-in", 1500)
		k.AddNIC("nic-out", 9000)
		var log strings.Builder
		c := parse(t, "on_exit = \""+onExit+"\"\n"+twoNICs)
		b, err := box.Open(k.Box(), box.Setup{Config: c, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"inside has mtu 1500 and outside has mtu 9000", "a system call each"} {
			if strings.Count(log.String(), want) != 1 {
				t.Errorf("want %q once in\n%s", want, &log)
			}
		}
		if b.MTU(verdict.Outside) != 9000 || b.Lanes() != 2 || len(b.Missed()) != 2 {
			t.Errorf("mtu %d, %d lanes, missed %v", b.MTU(verdict.Outside), b.Lanes(), b.Missed())
		}
		if err := b.CloseAndBypass(c); err != nil {
			t.Error(err)
		}
		if !k.Port("in").Closed() || !k.Port("out").Closed() || !k.Junction("nic-in").Closed() || !k.Junction("nic-out").Closed() {
			t.Error("a device was not closed")
		}
		if n := k.Bypassed(); (len(n) == 2) != (onExit == "bypass") || len(n) == 2 && (n[0].Name != "nic-in" || n[1].Name != "nic-out") {
			t.Errorf("on_exit = %s: bypassed %v", onExit, n)
		}
	}
}

// TestJoined checks that each port knows whether a NIC other than a bridge is joined to it.
func TestJoined(t *testing.T) {
	k := boxtest.New()
	k.AddNIC("nic-in", 1500)
	k.AddNIC("nic-out", 1500)
	bridge := k.AddNIC("bridge", 1500)
	c := parse(t, strings.ReplaceAll(twoNICs, "nic = \"nic-out\"\n", "mtu = 1500\n"))
	b, err := box.Open(k.Box(), box.Setup{Config: c, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if !k.Port("in").Joined() || k.Port("out").Joined() {
		t.Errorf("joined: inside %v, outside %v", k.Port("in").Joined(), k.Port("out").Joined())
	}
	c.Outside.NIC = "nic-out"
	if err := b.Join(verdict.Outside, c.Outside, true); err != nil || !k.Port("out").Joined() {
		t.Errorf("joined later: %v, %v", err, k.Port("out").Joined())
	}
	k.Change(bridge, func(l *netdev.Link) { l.Relays = true })
	c.Outside.NIC = "bridge"
	if err := b.Join(verdict.Outside, c.Outside, true); err != nil || k.Port("out").Joined() {
		t.Errorf("joined to a bridge: %v, %v", err, k.Port("out").Joined())
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// TestOpenFails checks that a failed Open leaves nothing behind.
func TestOpenFails(t *testing.T) {
	failed := errors.New("no more")
	for _, operation := range []string{"vacant", "openPort", "join", "readLink"} {
		k := boxtest.New()
		k.AddNIC("nic-in", 1500)
		k.AddNIC("nic-out", 1500)
		k.Fail(operation, failed)
		if _, err := box.Open(k.Box(), box.Setup{Config: parse(t, twoNICs), Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, failed) || !strings.HasPrefix(err.Error(), "inside: ") {
			t.Errorf("%s: %v", operation, err)
		}
		if p := k.Port("in"); p != nil && !p.Closed() {
			t.Errorf("%s: the port was not closed", operation)
		}
	}
	if _, err := box.Open(boxtest.New().Box(), box.Setup{Config: parse(t, twoNICs), Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, netdev.ErrMissing) {
		t.Errorf("without NICs: %v", err)
	}
	k := boxtest.New()
	k.AddNIC("nic-in", 1500)
	k.AddNIC("nic-out", 1500)
	c := parse(t, "on_exit = \"bypass\"\n"+twoNICs)
	b, err := box.Open(k.Box(), box.Setup{Config: c, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	k.Fail("bypass", failed)
	if err := b.CloseAndBypass(c); !errors.Is(err, failed) {
		t.Error(err)
	}
}

// TestNICIsJoinedAgain removes a NIC and adds it again with another MTU.
func TestNICIsJoinedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var back []netdev.Link
		r := watched(t, twoNICs, func(w *box.Watch) { w.Rejoined = func(l netdev.Link) { back = append(back, l) } })
		r.link(verdict.Outside, true, true)
		old := r.kernel.Junction("nic-out")
		r.kernel.Remove(r.nics[verdict.Outside])
		r.link(verdict.Outside, false, false)
		r.logged("nic removed")
		r.kernel.Fail("join", errors.New("busy"))
		r.kernel.AddNIC("nic-out", 1400)
		r.logged("cannot be joined")
		r.kernel.Fail("join", nil)
		index := r.kernel.AddNIC("other", 1500)
		r.link(verdict.Outside, true, true)
		r.logged("nic returned and is joined again")
		if !old.Closed() || r.MTU(verdict.Outside) != 1400 || r.kernel.Port("out").MTU() != 1400 || len(back) != 1 || back[0].Name != "nic-out" {
			t.Errorf("closed %v, mtu %d and %d, returned %v", old.Closed(), r.MTU(verdict.Outside), r.kernel.Port("out").MTU(), back)
		}
		r.kernel.Remove(index) // an unrelated device
		synctest.Wait()
		if last := r.events.Last(); len(last) != 2 || last[0].Link != "up" || last[1].Link != "down" || last[0].Device != "nic-out" {
			t.Errorf("%+v", last)
		}
	})
}

// TestJunctionIsRepaired removes a redirect and a bridge.
func TestJunctionIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := watched(t, strings.Replace(twoNICs, `"nic-out"`, "\"nic-out\"\njoin = \"bridge\"", 1), nil)
		for side, nic := range []string{"nic-in", "nic-out"} {
			old := r.kernel.Junction(nic)
			old.Break()
			r.kernel.Change(r.nics[side], func(*netdev.Link) {})
			r.logged("another program removed")
			now := r.kernel.Junction(nic)
			if intact, _ := now.Intact(); !intact || old.Closed() != (nic == "nic-out") {
				t.Errorf("%s: intact %v, old closed %v", nic, intact, old.Closed())
			}
		}
		r.kernel.Fail("repair", errors.New("busy"))
		r.kernel.Junction("nic-in").Break()
		r.kernel.Change(r.nics[0], func(*netdev.Link) {})
		r.logged("cannot join the nic again")
		r.kernel.Fail("readLink", errors.New("busy"))
		r.kernel.Change(r.nics[0], func(*netdev.Link) {})
		r.logged("cannot read the state of a nic")
		r.kernel.Fail("readLink", nil)
	})
}

// TestMTUIsFollowed changes the MTU of a NIC, with separate MTUs and with a shared one.
func TestMTUIsFollowed(t *testing.T) {
	for _, shared := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := watched(t, twoNICs, func(w *box.Watch) { w.SharedMTU = shared })
			r.kernel.Change(r.nics[verdict.Outside], func(l *netdev.Link) { l.MTU = 1400 })
			inside := 1500
			if shared {
				inside = 1400
			}
			r.logged("mtu of a nic changed")
			if r.MTU(verdict.Outside) != 1400 || r.MTU(verdict.Inside) != inside || r.kernel.Junction("nic-out").MTU != 1400 {
				t.Errorf("shared %v: %d and %d", shared, r.MTU(verdict.Inside), r.MTU(verdict.Outside))
			}
			r.kernel.Fail("setMTU", errors.New("too small"))
			r.kernel.Change(r.nics[verdict.Outside], func(l *netdev.Link) { l.MTU = 70 })
			r.logged("cannot follow the mtu")
		})
	}
}

// TestLinkDownIsPropagated takes the link of a side down and up again, with a delay.
func TestLinkDownIsPropagated(t *testing.T) {
	for _, inside := range []string{"nic-in", ""} {
		synctest.Test(t, func(t *testing.T) {
			text := twoNICs
			if inside == "" {
				text = strings.Replace(text, "nic = \"nic-in\"\n", "mtu = 1500\n", 1)
			}
			r := watched(t, text, func(w *box.Watch) { w.Propagate = true })
			up := func() bool {
				if inside == "" {
					return r.kernel.Port("in").Carrier()
				}
				return r.kernel.Link(r.nics[0]).Up
			}
			r.kernel.Fail("setLink", errors.New("busy"))
			if inside != "" {
				r.kernel.Change(r.nics[1], func(l *netdev.Link) { l.Carrier = false })
				r.logged("cannot propagate")
			}
			r.kernel.Fail("setLink", nil)
			r.kernel.Change(r.nics[1], func(l *netdev.Link) { l.Carrier = false })
			r.logged("link taken down")
			if up() {
				t.Error("the inside is up")
			}
			r.kernel.Change(r.nics[1], func(l *netdev.Link) { l.Carrier = true })
			r.logged("link brought up")
			if !up() {
				t.Error("the inside is down")
			}
			time.Sleep(time.Minute) // simulated time; afterwards no timer runs
			r.link(verdict.Inside, inside != "", true)
			r.kernel.Change(r.nics[1], func(l *netdev.Link) { l.Carrier = false })
			r.logged("link taken down") // it comes up again when the box closes
		})
	}
}
