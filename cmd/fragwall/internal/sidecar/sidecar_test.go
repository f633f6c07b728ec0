package sidecar

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/box/boxtest"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun/handover"
	"fragwall/tun/netdev"
)

const configuration = "[inside]\ntap = \"in\"\nmtu = 1500\n[outside]\ntap = \"out\"\nmtu = 1500\n"

func parse(t *testing.T, text string) *rules.Config {
	t.Helper()
	c, err := rules.Parse("x.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fake is a namespace in memory with an attachment.
type fake struct {
	*attachment
	log    strings.Builder
	box    *box.Box
	kernel *boxtest.Kernel

	isMoved  bool
	calls    []string
	failures map[string]error
	given    []string // what the NIC received late
	messages chan []syscall.NetlinkMessage
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{kernel: boxtest.New(), failures: map[string]error{}, messages: make(chan []syscall.NetlinkMessage)}
	nic := f.kernel.AddNIC("eth0", 1500)
	store, err := handover.NewStore(t.TempDir(), "eth0")
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, configuration)
	if err := Fit(c, "eth0"); err != nil {
		t.Fatal(err)
	}
	f.attachment = &attachment{
		config: c, store: store, log: slog.New(slog.NewTextHandler(&f.log, nil)), changed: make(chan struct{}, 1),
		state: &handover.State{NIC: "eth0", Index: nic, TAPs: []string{"in", "out"}}, kernel: f.namespace(),
	}
	setup := box.Setup{Config: f.devices(), Log: f.attachment.log}
	f.attachment.Prepare(&setup)
	if f.box, err = box.Open(f.kernel.Box(), setup); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.box.Close() })
	return f
}

func (f *fake) call(name string) error {
	f.calls = append(f.calls, name)
	return f.failures[name]
}

func (f *fake) namespace() *namespace {
	return &namespace{
		move: func(_ *handover.State, _ string, join func() error) ([]string, error) {
			if err := errors.Join(f.call("move"), join()); err != nil {
				return nil, err
			}
			f.isMoved = true
			return []string{"ipv4 rp_filter=1"}, nil
		},
		moved:   func(*handover.State) bool { return f.isMoved },
		refresh: func(*handover.State, string) error { return f.call("refresh") },
		adopt: func(*handover.State, string) ([]string, error) {
			given := f.given
			f.given = nil
			return given, f.call("adopt")
		},
		replace: func(*handover.State, string, string) error { return f.call("replace") },
		putBack: func(_ *handover.State, _ string, detach func() error) error {
			return errors.Join(f.call("putBack"), detach())
		},
		index: func(string) (int, error) { return 77, f.call("index") },
		follow: func(ctx context.Context, _ *slog.Logger, take func([]syscall.NetlinkMessage), _ ...uint) {
			for {
				select {
				case m := <-f.messages:
					take(m)
				case <-ctx.Done():
					return
				}
			}
		},
	}
}

// TestAttach checks Attach and Detach.
func TestAttach(t *testing.T) {
	f := newFake(t)
	about, err := f.Attach(f.box)
	if err != nil || !slices.Contains(about, any("eth0")) || !strings.Contains(f.log.String(), "rp_filter") {
		t.Errorf("%v, %v\n%s", about, err, &f.log)
	}
	if l := f.box.Links()[verdict.Outside]; !l.Joined || l.NIC != "eth0" || !f.kernel.Junction("eth0").Addressed {
		t.Errorf("%+v", l)
	}
	if _, err := os.Stat(f.store.Path()); err != nil {
		t.Error(err)
	}
	if p := f.Needs(); len(p.Keep) != 1 || len(p.Devices) != 1 {
		t.Errorf("%+v", p)
	}
	if err := f.Detach(); err != nil {
		t.Error(err)
	}
	if want := []string{"move", "adopt", "refresh", "putBack"}; !slices.Equal(f.calls, want) || !f.kernel.Junction("eth0").Closed() {
		t.Errorf("%q, want %q", f.calls, want)
	}
	if _, err := os.Stat(f.store.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state file still exists: %v", err)
	}
}

// TestAttachFails checks that the saved state remains if Detach fails, and that nothing is
// moved back if Attach failed.
func TestAttachFails(t *testing.T) {
	failed := errors.New("no more")
	f := newFake(t)
	f.failures["putBack"], f.failures["refresh"], f.failures["adopt"] = failed, failed, failed
	if _, err := f.Attach(f.box); err != nil {
		t.Fatal(err)
	}
	if err := f.Detach(); !errors.Is(err, failed) || !strings.Contains(err.Error(), `"fragwall sidecar --restore --nic eth0" tries again`) {
		t.Error(err)
	}
	if _, err := os.Stat(f.store.Path()); err != nil {
		t.Error(err)
	}

	f = newFake(t)
	f.failures["move"] = failed
	if _, err := f.Attach(f.box); !errors.Is(err, failed) {
		t.Error(err)
	}
	if err := f.Detach(); err != nil || slices.Contains(f.calls, "refresh") {
		t.Errorf("%v, %q", err, f.calls)
	}
}

// address returns a message about an address of a device.
func address(index int) syscall.NetlinkMessage {
	m := syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.RTM_NEWADDR}, Data: make([]byte, unix.SizeofIfAddrmsg)}
	m.Data[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(m.Data[4:], uint32(index))
	return m
}

// TestFollow checks that addresses that the NIC receives later are moved, and that a NIC that
// returned is taken over.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.messages = make(chan []syscall.NetlinkMessage)
		if _, err := f.Attach(f.box); err != nil {
			t.Fatal(err)
		}
		f.calls = nil
		var w box.Watch
		if f.Adapt(&w); !w.SharedMTU {
			t.Error("the sides do not share an MTU")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var following sync.WaitGroup
		following.Go(func() { f.Follow(ctx) })
		expect := func(want ...string) {
			t.Helper()
			time.Sleep(10 * time.Second) // simulated time
			synctest.Wait()
			if !slices.Equal(f.calls, want) {
				t.Errorf("%q, want %q", f.calls, want)
			}
			f.calls = nil
		}
		f.messages <- []syscall.NetlinkMessage{address(4711)}
		expect("index") // an address of an unrelated device changes nothing
		f.given = []string{"10.0.0.2/24"}
		f.messages <- []syscall.NetlinkMessage{address(f.state.Index)}
		expect("adopt", "refresh")
		f.messages <- []syscall.NetlinkMessage{address(77)}
		expect("adopt", "refresh")
		if !strings.Contains(f.log.String(), "10.0.0.2/24") {
			t.Error(&f.log)
		}
		f.failures["refresh"] = errors.New("no more")
		for range 2 {
			f.messages <- nil
			expect("adopt", "refresh")
		}
		if n := strings.Count(f.log.String(), "are lost if the process is killed"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		w.Rejoined(netdev.Link{Name: "eth0"})
		expect("replace", "adopt", "refresh")
		f.failures["replace"] = errors.New("no more")
		w.Rejoined(netdev.Link{Name: "eth0"})
		expect("replace")
		f.messages <- nil
		synctest.Wait()
		cancel() // during the delay
		following.Wait()
	})
	f := newFake(t)
	f.failures["index"] = errors.New("gone")
	if f.Follow(t.Context()); !strings.Contains(f.log.String(), "cannot follow changes") {
		t.Error(&f.log)
	}
}

// TestFit checks which configurations a sidecar accepts.
func TestFit(t *testing.T) {
	for text, want := range map[string]string{
		configuration: "",
		strings.Replace(configuration, "[outside]", "[outside]\nnic = \"eth0\"", 1): "",
		strings.Replace(configuration, "[outside]", "nic = \"eth1\"\n[outside]", 1): `inside has nic "eth1"`,
		strings.Replace(configuration, "[outside]", "[outside]\nnic = \"eth1\"", 1): `outside has nic "eth1", but --nic says "eth0"`,
		strings.Replace(configuration, `"out"`, `"eth0"`, 1):                        `"eth0" is the nic's name`,
	} {
		if err := Fit(parse(t, text), "eth0"); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestRestoreWithoutState checks Restore without saved state, and at a NIC that another sidecar
// uses.
func TestRestoreWithoutState(t *testing.T) {
	store, err := handover.NewStore(t.TempDir(), "none0")
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	if err := Restore("none0", store, slog.New(slog.NewTextHandler(&log, nil))); err != nil || !strings.Contains(log.String(), "nothing to restore") {
		t.Errorf("%v\n%s", err, &log)
	}
	if err := replaceLeft("none0", store, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	unlock, err := lockNIC("none0")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := Restore("none0", store, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another sidecar uses it") {
		t.Error(err)
	}
}
