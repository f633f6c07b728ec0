package box_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/packet/verdict"
	"fragwall/tun/netdev"
)

// handOver suspends the box of a rig and returns a box that has taken over its devices.
func (r *rig) handOver(text string) (*box.Box, error) {
	r.Helper()
	ports, fast, err := r.Export()
	if err != nil {
		r.Fatal(err)
	}
	next, err := box.Import(r.kernel.Box(), box.Setup{Config: parse(r.T, text), FastPath: fast, Log: slog.New(slog.NewTextHandler(&r.log, nil))}, ports)
	if err != nil {
		return nil, err
	}
	if r.meanwhile != nil {
		r.meanwhile()
	}
	sent, err := json.Marshal(r.Suspend())
	if err != nil {
		r.Fatal(err)
	}
	var ends box.Ends
	if err := json.Unmarshal(sent, &ends); err != nil {
		r.Fatal(err)
	}
	r.kernel.Fail("readLink", errors.New("the wire is held"))
	defer r.kernel.Fail("readLink", nil)
	if err := next.Adopt(ends); err != nil {
		return nil, errors.Join(err, next.Close())
	}
	next.ContinueFastPath()
	return next, nil
}

// TestHandOver checks that a box that has taken over uses and finally removes the devices, and
// that the box that left changes nothing.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := watched(t, twoNICs+"queues = 1", nil)
		r.AttachFastPath()
		first, of, in := r.kernel.FastPath(), r.kernel.Junction("nic-in"), r.kernel.Port("in")
		r.kernel.Change(r.nics[verdict.Inside], func(l *netdev.Link) { l.MTU = 1400 })
		r.logged("mtu of a nic changed")
		next, err := r.handOver(twoNICs + "queues = 1")
		if err != nil {
			t.Fatal(err)
		}
		second := r.kernel.FastPath()
		if !first.Suspended() || !first.Side(verdict.Inside).Attached || second == first || !second.Side(verdict.Inside).Replaced || !second.Side(verdict.Outside).Egress {
			t.Errorf("suspended %v; inside %+v, of the next %+v", first.Suspended(), first.Side(verdict.Inside), second.Side(verdict.Inside))
		}
		r.Leave()
		if nic := in.NIC(); nic != 0 {
			t.Errorf("the process that left collects the fragments of NIC %d", nic)
		}
		if err := r.CloseAndBypass(parse(t, "on_exit = \"bypass\"\n"+twoNICs)); err != nil {
			t.Error(err)
		}
		if of.Closed() || r.kernel.Bypassed() != nil || !first.Closed() {
			t.Errorf("closed %v, bypassed %v, fast path closed %v", of.Closed(), r.kernel.Bypassed(), first.Closed())
		}
		next.AttachFastPath()
		if mtu := next.MTU(verdict.Inside); mtu != 1400 || r.kernel.FastPath() == first || !r.kernel.FastPath().Side(verdict.Inside).Attached || r.kernel.FastPath().Side(verdict.Inside).MTU != 1400 {
			t.Errorf("mtu %d, fast path %+v", mtu, r.kernel.FastPath().Side(verdict.Inside))
		}
		if n := next.FastPath().Sides["inside"].Forwarded; n != 7+7 {
			t.Errorf("the fast path has forwarded %d frames, want 14 with the previous ones", n)
		}
		if l := next.Links()[verdict.Inside]; !l.Joined || !l.Up || l.NIC != "nic-in" || !r.kernel.Port("in").Joined() {
			t.Errorf("%+v, the port is joined %v", l, r.kernel.Port("in").Joined())
		}
		taken := r.kernel.Junction("nic-in")
		if taken == of {
			t.Fatal("the junction was not taken over")
		}
		if err := next.Close(); err != nil || !taken.Closed() {
			t.Errorf("the junction is closed %v: %v", taken.Closed(), err)
		}
	})
}

// TestHandOverAttachesAnew checks that a box that takes over attaches its own programs if it cannot
// replace those of the first box, or if a NIC has been replaced since.
func TestHandOverAttachesAnew(t *testing.T) {
	for _, test := range []struct{ fails, replugged bool }{{false, true}, {true, false}} {
		synctest.Test(t, func(t *testing.T) {
			r := watched(t, twoNICs, nil)
			r.AttachFastPath()
			if test.fails {
				r.kernel.Fail("continue", errors.New("no"))
			}
			if test.replugged {
				r.meanwhile = func() {
					r.kernel.Remove(r.nics[verdict.Inside])
					synctest.Wait()
					r.kernel.AddNIC("nic-in", 1500)
					r.logged("nic returned")
				}
			}
			next, err := r.handOver(twoNICs)
			if err != nil {
				t.Fatal(err)
			}
			f := r.kernel.FastPath()
			if in, out := f.Side(verdict.Inside), f.Side(verdict.Outside); in.Attached || out.Replaced == test.fails {
				t.Errorf("%+v: inside %+v, outside %+v", test, in, out)
			}
			r.Leave()
			next.AttachFastPath()
			if in := f.Side(verdict.Inside); !in.Attached || in.Replaced {
				t.Errorf("%+v: inside %+v", test, in)
			}
			if err := errors.Join(r.Close(), next.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHandOverFails checks that a box continues as before if another one fails to take over.
func TestHandOverFails(t *testing.T) {
	for _, operation := range []string{"importPort", "importJunction", "openFastPath"} {
		synctest.Test(t, func(t *testing.T) {
			r := watched(t, twoNICs, nil)
			r.AttachFastPath()
			fast := r.kernel.FastPath()
			r.kernel.Fail(operation, errors.New("no"))
			next, err := r.handOver(twoNICs)
			switch operation {
			case "importPort": // fails before the box is suspended
			case "openFastPath": // the other box works without it
				if err != nil {
					t.Fatal(err)
				}
				r.Resume()
				next.Suspend()
				next.Leave()
				if err := next.Close(); err != nil {
					t.Error(err)
				}
			default:
				if nic := r.kernel.Port("in").NIC(); nic != 0 {
					t.Errorf("fragments from NIC %d go through a ring that another process reads", nic)
				}
				r.Resume()
				r.AttachFastPath()
				if nic := r.kernel.Port("in").NIC(); nic != r.nics[verdict.Inside] {
					t.Errorf("fragments from NIC %d go through a ring, want %d", nic, r.nics[verdict.Inside])
				}
			}
			if operation != "openFastPath" && err == nil {
				t.Errorf("%s failed, but the box was taken over", operation)
			}
			r.kernel.Fail(operation, nil)
			if r.kernel.Junction("nic-in").Closed() {
				t.Error("the junction was closed")
			}
			if operation == "importJunction" && fast.Suspended() {
				t.Error("the fast path is still suspended")
			}
			r.kernel.Change(r.nics[verdict.Inside], func(l *netdev.Link) { l.Carrier = false })
			r.link(verdict.Inside, true, false)
		})
	}
}

// TestHandOverHeld checks that a link that is held is brought up by the box that has taken
// over, not by the one that left.
func TestHandOverHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := watched(t, "on_link_down = \"propagate\"\n"+twoNICs, func(w *box.Watch) { w.Propagate = true })
		r.kernel.Change(r.nics[verdict.Inside], func(l *netdev.Link) { l.Carrier = false })
		r.logged("link taken down")
		next, err := r.handOver(twoNICs)
		if err != nil {
			t.Fatal(err)
		}
		r.Leave()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if l := r.kernel.Link(r.nics[verdict.Outside]); l.Up {
			t.Error("the box that was left brought a link up")
		}
		if err := next.Close(); err != nil {
			t.Error(err)
		}
		if l := r.kernel.Link(r.nics[verdict.Outside]); !l.Up {
			t.Error("the link stays down")
		}
	})
}
