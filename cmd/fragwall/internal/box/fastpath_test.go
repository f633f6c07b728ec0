package box_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/box/boxtest"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/fastpath"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun/netdev"
)

// TestFastPathIsAttached checks that the fast path has the configured options, is attached to
// both NICs, and is closed with the box.
func TestFastPathIsAttached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := watched(t, twoNICs+"[log]\ndrops = \"off\"\n[policy]\nstateful = true\n", nil)
		f := r.kernel.FastPath()
		if f == nil {
			t.Fatal("no fast path was opened")
		}
		if o := f.Options; o.Entries != fastpath.Entries || o.MaxFragments != 8192 || o.Drops != fastpath.DropSilently {
			t.Errorf("%+v", o)
		}
		if f.Side(verdict.Inside).Attached {
			t.Error("the fast path is attached before AttachFastPath")
		}
		// As if the process from which the box was taken over still collected.
		r.kernel.Port("in").FailCollect(fs.ErrExist, fs.ErrExist)
		r.AttachFastPath()
		for side := range verdict.Side(verdict.Sides) {
			port := r.kernel.Port([]string{"in", "out"}[side])
			if got, want := f.Side(side), (boxtest.FastSide{Attached: true, NIC: r.nics[side], TAP: port.Index(), MTU: 1500, Egress: true}); got != want {
				t.Errorf("%v: %+v, want %+v", side, got, want)
			}
			if got := port.NIC(); got != r.nics[side] {
				t.Errorf("%v: fragments are collected from NIC %d", side, got)
			}
		}
		if got := r.FastPath(); got.State != report.FastPathOn || got.Sides["inside"].Forwarded != 7 || got.Sides["outside"].Ring != 5 || got.EntriesLimit != fastpath.Entries {
			t.Errorf("%+v", got)
		}
		if r.kernel.FastPath() != f || strings.Contains(r.log.String(), "fast path") {
			t.Error(r.log.String())
		}
		for rate, want := range map[filter.Rate]fastpath.Drops{rules.All: fastpath.DropNone, {}: fastpath.DropSilently, {Count: 1, Per: 1}: fastpath.DropSampled} {
			if r.SetDropEvents(rate); f.Drops() != want {
				t.Errorf("%v: %v", rate, f.Drops())
			}
		}
		if r.Watch(func(*flow.Key) bool { return true }); f.Watched() == nil {
			t.Error("no flow is watched")
		}
		if r.Watch(nil); f.Watched() != nil {
			t.Error("flows are still watched")
		}
		if err := r.Close(); err != nil || !f.Closed() || r.kernel.Port("in").NIC() != 0 {
			t.Errorf("closed %v, %v", f.Closed(), err)
		}
	})
}

// TestRingSizes checks the size of the ring in several configurations.
func TestRingSizes(t *testing.T) {
	for text, want := range map[string]int{
		twoNICs: 8192,
		twoNICs + "[fragments]\nmode = \"validate\"\n":                                           0,
		"fast_path = \"off\"\n" + twoNICs:                                                        0,
		strings.Replace(twoNICs, "nic = \"nic-out\"", "nic = \"nic-out\"\njoin = \"bridge\"", 1): 0,
	} {
		synctest.Test(t, func(t *testing.T) {
			r := watched(t, text, nil)
			for _, port := range []string{"in", "out"} {
				if got := r.kernel.Port(port).Config.Fragments; got != want {
					t.Errorf("the ring has %d slots, want %d, with\n%s", got, want, text)
				}
			}
		})
	}
}

// TestFastPathOff checks that the reason for which the fast path is off is logged once.
func TestFastPathOff(t *testing.T) {
	for name, c := range map[string]struct {
		text      string
		operation string
		err       error
		want      report.Off
	}{
		"off":       {text: "fast_path = \"off\"\n" + twoNICs, want: report.OffConfiguration},
		"bridge":    {text: strings.Replace(twoNICs, "nic = \"nic-out\"", "nic = \"nic-out\"\njoin = \"bridge\"", 1), want: report.OffBridge},
		"no nic":    {text: strings.Replace(twoNICs, "nic = \"nic-in\"\n", "", 1), want: report.OffNoNIC},
		"rights":    {text: twoNICs, operation: "openFastPath", err: syscall.EPERM, want: report.OffRights},
		"kernel":    {text: twoNICs, operation: "openFastPath", err: fastpath.ErrUnavailable, want: report.OffKernel},
		"attaching": {text: twoNICs, operation: "attach", err: errors.New("busy"), want: report.OffError},
	} {
		t.Run(name, func(t *testing.T) {
			k := boxtest.New()
			k.AddNIC("nic-in", 1500)
			k.AddNIC("nic-out", 1500)
			k.Fail(c.operation, c.err)
			var log strings.Builder
			b, err := box.Open(k.Box(), box.Setup{Config: parse(t, c.text), Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			b.AttachFastPath()
			got := b.FastPath()
			if got.State != report.FastPathOff || got.Reason != c.want || (got.Error == "") != (c.err == nil) {
				t.Errorf("%+v", got)
			}
			if strings.Count(log.String(), "the fast path is off") != 1 || !strings.Contains(log.String(), "reason="+string(c.want)) {
				t.Errorf("log:\n%s", &log)
			}
			if f := k.FastPath(); f != nil && !f.Closed() {
				t.Error("the fast path was not closed")
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFastPathFollowsNIC changes a NIC, removes it, and adds it again.
func TestFastPathFollowsNIC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := watched(t, twoNICs, nil)
		f := r.kernel.FastPath()
		r.AttachFastPath()
		outside := func() boxtest.FastSide {
			synctest.Wait()
			return f.Side(verdict.Outside)
		}
		r.kernel.Change(r.nics[verdict.Outside], func(l *netdev.Link) { l.MTU = 1400 })
		if got := outside(); got.MTU != 1400 {
			t.Errorf("%+v", got)
		}
		for _, up := range []bool{false, true} {
			r.kernel.Change(r.nics[verdict.Outside], func(l *netdev.Link) { l.Carrier = up })
			if got := outside(); got.Egress != up || !got.Attached {
				t.Errorf("carrier %v: %+v", up, got)
			}
		}
		r.kernel.Remove(r.nics[verdict.Outside])
		if got := outside(); got.Attached || got.Egress || r.kernel.Port("out").NIC() != 0 {
			t.Errorf("without a NIC: %+v", got)
		}
		index := r.kernel.AddNIC("nic-out", 1500)
		if got := outside(); !got.Attached || got.NIC != index || !got.Egress || got.MTU != 1500 || r.kernel.Port("out").NIC() != index {
			t.Errorf("with NIC %d: %+v", index, got)
		}

		r.kernel.Remove(index)
		synctest.Wait()
		r.kernel.Fail("attach", syscall.EPERM)
		r.kernel.AddNIC("nic-out", 1500)
		r.logged("the fast path is off")
		r.link(verdict.Outside, true, true)
		if r.kernel.Port("out").NIC()+r.kernel.Port("in").NIC() != 0 {
			t.Error("fragments are still collected")
		}
		if got := r.FastPath(); got.Reason != report.OffRights || !f.Closed() || got.Sides["inside"].Forwarded != 7 {
			t.Errorf("closed %v, %+v", f.Closed(), got)
		}
	})
}

// TestFastPathOfMissingNIC attaches the fast path when a NIC has just been removed, and adds the NIC
// again.
func TestFastPathOfMissingNIC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := watched(t, twoNICs, nil)
		r.kernel.Fail("attach", fmt.Errorf("attach: %w", syscall.ENODEV))
		r.AttachFastPath()
		r.kernel.Fail("attach", nil)
		r.kernel.Remove(r.nics[verdict.Outside])
		synctest.Wait()
		index := r.kernel.AddNIC("nic-out", 1500)
		synctest.Wait()
		if got := r.kernel.FastPath().Side(verdict.Outside); !got.Attached || got.NIC != index {
			t.Errorf("%+v, want it attached to NIC %d", got, index)
		}
	})
}

// TestFastPathOfSidecar checks that the fast path is attached to the NIC and to the inside
// port.
func TestFastPathOfSidecar(t *testing.T) {
	k := boxtest.New()
	nic := k.AddNIC("nic-out", 1500)
	c := parse(t, "[inside]\ntap = \"in\"\n[outside]\ntap = \"out\"\n")
	b, err := box.Open(k.Box(), box.Setup{Config: c, Log: slog.New(slog.DiscardHandler), Sidecar: true})
	if err != nil {
		t.Fatal(err)
	}
	f := k.FastPath()
	if in, out := k.Port("in").Config.Fragments, k.Port("out").Config.Fragments; in != 0 || out != 1024 {
		t.Errorf("rings of %d and %d slots", in, out)
	}
	if f.Options.Entries != fastpath.SidecarEntries || f.Side(verdict.Inside).Attached {
		t.Errorf("%+v, %+v", f.Options, f.Side(verdict.Inside))
	}
	outside := c.Outside
	outside.NIC = "nic-out"
	if err := b.Join(verdict.Outside, outside, true); err != nil {
		t.Fatal(err)
	}
	b.AttachFastPath()
	for side, want := range [verdict.Sides]boxtest.FastSide{
		{Attached: true, TAP: k.Port("in").Index(), MTU: 1500, Egress: true},
		{Attached: true, NIC: nic, TAP: k.Port("out").Index(), MTU: 1500, Egress: true},
	} {
		if got := f.Side(verdict.Side(side)); got != want {
			t.Errorf("%v: %+v, want %+v", verdict.Side(side), got, want)
		}
	}
	if err := b.CloseFastPath(); err != nil || !f.Closed() {
		t.Errorf("closed %v, %v", f.Closed(), err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
