package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/box/boxtest"
	"fragwall/cmd/fragwall/internal/confine"
	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/fastpath"
	"fragwall/packet/packettest"
)

const forwarding = "[inside]\ntap = \"in\"\nmtu = 1500\n[outside]\ntap = \"out\"\nmtu = 1500\n[status]\nlisten = \"\"\n[policy]\ndefault = \"accept\"\n"

// output collects what a daemon prints. It may be read at the same time.
type output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(b), nil
}

// await waits for a text until the test times out.
func (o *output) await(t *testing.T, text string) {
	t.Helper()
	for {
		o.mu.Lock()
		found, changed := strings.Contains(o.text.String(), text), o.changed
		o.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("no %q in the output", text)
		}
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// steps is an attachment that records calls.
type steps struct {
	t      *testing.T
	kernel *boxtest.Kernel
	output *output
	fail   error       // error of Attach
	broken atomic.Bool // the wire has failed

	mu    sync.Mutex
	calls []string
}

func (s *steps) note(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

func (s *steps) Attach(*box.Box) ([]any, error) {
	s.note("attach")
	s.passes()
	return []any{"nic", "eth0"}, s.fail
}

func (s *steps) Follow(ctx context.Context) { <-ctx.Done(); s.note("followed") }

func (s *steps) Prepare(setup *box.Setup) { setup.Sidecar = true }

func (s *steps) Adapt(*box.Watch) { s.note("adapt") }

func (s *steps) Needs() confine.Plan { return confine.Plan{Devices: []string{"/dev/x"}} }

func (s *steps) Detach() error {
	s.note("detach")
	if !s.kernel.FastPath().Closed() {
		s.t.Error("the fast path is still on")
	}
	if !s.broken.Load() {
		s.passes()
	}
	if strings.Contains(s.output.String(), "from inside ") {
		s.t.Error("the counters were printed before the end")
	}
	return nil
}

// passes sends a frame through the box.
func (s *steps) passes() {
	frame := packettest.UDP(netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2"), []byte("x")).Frame()
	s.kernel.Port("in").Inject(frame)
	if f, err := s.kernel.Port("out").Next(s.t.Context()); err != nil || !slices.Equal(f.Data, frame) {
		s.t.Errorf("%x, %v", f.Data, err)
	}
}

// started is a daemon that runs in the directory of the test.
type started struct {
	*steps
	daemon           *Daemon // only for a daemon of a network
	reload, counters chan os.Signal
	stop             func()
	ended            chan error
	plan             confine.Plan
}

func start(t *testing.T, config, socket string, fail error) *started {
	t.Helper()
	t.Chdir(t.TempDir())
	write(t, "x.toml", config)
	s := &started{
		steps:  &steps{t: t, kernel: boxtest.New(), output: &output{changed: make(chan struct{})}, fail: fail},
		reload: make(chan os.Signal), counters: make(chan os.Signal), ended: make(chan error, 1),
	}
	startup, err := Load(io.Discard, "x.toml", filepath.Join(t.TempDir(), "kept"))
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{
		Startup: startup, Stderr: s.output, Build: report.Build{Version: "1.2.3"}, Kernel: s.kernel.Box(),
		Socket: socket, WatchConfig: true, Reload: s.reload, Counters: s.counters,
		Confine: func(p confine.Plan, _ *slog.Logger) { s.note("confine"); s.plan = p },
	})
	var ctx context.Context
	ctx, s.stop = context.WithCancel(t.Context())
	go func() { s.ended <- d.Run(ctx, startup.Config(), s) }()
	return s
}

// printUntil requests the counters until they contain text, because a frame leaves shortly
// before it is counted.
func (s *started) printUntil(text string) {
	for !strings.Contains(s.output.String(), text) {
		select {
		case s.counters <- syscall.SIGUSR1:
		case <-s.t.Context().Done():
			s.t.Fatalf("no %q in the output", text)
		}
	}
}

// TestLifeCycle checks the order of the steps of a daemon, and sends it each kind of request.
func TestLifeCycle(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			s := start(t, forwarding+"[log]\nformat = \""+format+"\"\n", "x.sock", nil)
			s.output.await(t, "ready")
			s.passes()
			s.printUntil(map[string]string{"text": "from inside  received 2, forwarded 2", "json": `"from":"inside","received":2,"forwarded":2`}[format])

			ask, err := control.Instance{Socket: "x.sock"}.Reporter()
			if err != nil {
				t.Fatal(err)
			}
			r, raw, err := ask(t.Context())
			if err != nil || !r.Ready || r.Version != "1.2.3" || r.Sides["inside"].Forwarded != 2 || r.Sides["outside"].Device != "out" || !json.Valid(raw) {
				t.Errorf("%s, %v", raw, err)
			}
			s.reload <- syscall.SIGHUP
			s.output.await(t, "nothing changed")
			s.output.mu.Lock() // the previous answers have been printed
			s.output.text.Reset()
			s.output.mu.Unlock()
			if o, err := (control.Instance{Socket: "x.sock"}).Reload(); err != nil || !strings.Contains(o.Text, "generation 3: nothing changed") {
				t.Errorf("%+v, %v", o, err)
			}
			write(t, "x.toml", forwarding+"[[rule]]\nname = \"r\"\naction = \"accept\"\n[log]\ndrops = \"all\"\nformat = \""+format+"\"\n")
			s.output.await(t, "1 rule, ") // by the watcher
			if drops := s.kernel.FastPath().Drops(); drops != fastpath.DropNone {
				t.Errorf("after the reload, the fast path has drops %v", drops)
			}

			s.stop()
			if err := <-s.ended; err != nil {
				t.Error(err)
			}
			if want := []string{"attach", "adapt", "confine", "followed", "detach"}; !slices.Equal(s.calls, want) {
				t.Errorf("%q, want %q", s.calls, want)
			}
			if !slices.Contains(s.plan.Devices, "/dev/x") || !slices.Contains(s.plan.Read, ".") || len(s.plan.Keep) != 1 || !s.plan.FastPath {
				t.Errorf("%+v", s.plan)
			}
			if !s.kernel.Port("in").Closed() || !s.kernel.Port("out").Closed() {
				t.Error("the devices were not closed")
			}
			if _, err := os.Lstat("x.sock"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket still exists: %v", err)
			}
			if printed := map[string]string{"text": "from inside  received 3", "json": `"from":"inside","received":3`}[format]; !strings.Contains(s.output.String(), printed) {
				t.Errorf("no counters at the end:\n%s", s.output)
			}
		})
	}
}

// TestAttachFails checks that a failed Attach is undone, and that no counters are printed.
func TestAttachFails(t *testing.T) {
	failed := errors.New("no addresses")
	s := start(t, forwarding, "x.sock", failed)
	if err := <-s.ended; !errors.Is(err, failed) {
		t.Error(err)
	}
	if want := []string{"attach", "detach"}; !slices.Equal(s.calls, want) {
		t.Errorf("%q, want %q", s.calls, want)
	}
	if !s.kernel.Port("in").Closed() || strings.Contains(s.output.String(), "from inside") {
		t.Errorf("%s", s.output)
	}
}

// TestWireFails checks that the daemon ends if the wire fails.
func TestWireFails(t *testing.T) {
	s := start(t, forwarding, "x.sock", nil)
	s.output.await(t, "ready")
	s.broken.Store(true)
	s.kernel.Port("in").Fail()
	if err := <-s.ended; err == nil {
		t.Error("no error")
	}
	if !slices.Contains(s.calls, "detach") || strings.Contains(s.output.String(), "stopping") {
		t.Errorf("%q\n%s", s.calls, s.output)
	}
}

// TestStatusServer checks that the daemon runs without the status server if its address is in
// use, and with it otherwise.
func TestStatusServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	with := strings.Replace(forwarding, `listen = ""`, `listen = "`+address+`"`, 1)
	for _, c := range []struct{ socket, want string }{
		{"x.sock", "bind: address already in use"},
		{"none/x.sock", "no control socket: reload with SIGHUP"},
	} {
		s := start(t, with, c.socket, nil)
		s.output.await(t, "ready")
		if !strings.Contains(s.output.String(), c.want) {
			t.Errorf("no %q in\n%s", c.want, s.output)
		}
		s.stop()
		if err := <-s.ended; err != nil {
			t.Error(err)
		}
		_ = l.Close() // the address is free the second time
	}
}
