package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"fragwall/cmd/fragwall/internal/box/boxtest"
	"fragwall/cmd/fragwall/internal/confine"
	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// replaceable returns a configuration with NICs and a status server address.
func replaceable(status string) string {
	return fmt.Sprintf("[inside]\ntap = \"in\"\nnic = \"nic-in\"\n[outside]\ntap = \"out\"\nnic = \"nic-out\"\n[status]\nlisten = %q\n[policy]\ndefault = \"accept\"\n", status)
}

// network is a kernel with two NICs for daemons in the directory of the test.
type network struct {
	*boxtest.Kernel
	t *testing.T
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	t.Chdir(t.TempDir())
	n := &network{boxtest.New(), t}
	n.AddNIC("nic-in", 1500)
	n.AddNIC("nic-out", 1500)
	return n
}

// start starts a daemon as the run command does.
func (n *network) start(config, version string, replace bool) *started {
	n.t.Helper()
	return n.run(n.load(config, version), version, replace)
}

// load reads a configuration for a daemon of a version.
func (n *network) load(config, version string) *Startup {
	n.t.Helper()
	write(n.t, version+".toml", config)
	startup, err := Load(io.Discard, version+".toml", "")
	if err != nil {
		n.t.Fatal(err)
	}
	return startup
}

// run starts a daemon that has read its configuration.
func (n *network) run(startup *Startup, version string, replace bool) *started {
	s := &started{
		steps:  &steps{t: n.t, kernel: n.Kernel, output: &output{changed: make(chan struct{})}},
		reload: make(chan os.Signal), counters: make(chan os.Signal), ended: make(chan error, 1),
	}
	d := New(Options{
		Startup: startup, Stderr: s.output, Build: report.Build{Version: version}, Kernel: n.Box(), Socket: "x.sock", Replace: replace,
		Reload: s.reload, Counters: s.counters, Confine: func(confine.Plan, *slog.Logger) {},
	})
	var ctx context.Context
	ctx, s.stop = context.WithCancel(n.t.Context())
	s.daemon = d
	go func() { s.ended <- d.Run(ctx, startup.Config(), Configured{startup.Config()}) }()
	return s
}

// runs checks that an instance forwards, and that it is of a version.
func (n *network) runs(s *started, version string, forwarded uint64) {
	n.t.Helper()
	s.passes()
	ask, err := control.Instance{Socket: "x.sock"}.Reporter()
	if err != nil {
		n.t.Fatal(err)
	}
	for { // a frame leaves shortly before it is counted
		r, _, err := ask(n.t.Context())
		if err != nil || r.Version != version || !r.Ready || r.Sides["inside"].Forwarded > forwarded {
			n.t.Fatalf("%+v, %v; want version %s that forwarded %d", r, err, version, forwarded)
		}
		if r.Sides["inside"].Forwarded == forwarded {
			return
		}
	}
}

// ends stops the only instance.
func (n *network) ends(s *started) {
	n.t.Helper()
	s.stop()
	if err := <-s.ended; err != nil {
		n.t.Error(err)
	}
	if !n.Junction("nic-in").Closed() || !n.Port("in").Closed() {
		n.t.Error("the devices were not closed")
	}
	if _, err := os.Lstat("x.sock"); !errors.Is(err, os.ErrNotExist) {
		n.t.Errorf("the socket still exists: %v", err)
	}
}

// freeAddress returns an address that is not in use.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// TestReplace makes several instances take over, one after another. Each must continue with the
// counters and sockets of the previous one, which must end without changing a device.
func TestReplace(t *testing.T) {
	n, config := newNetwork(t), replaceable(freeAddress(t))
	last := n.start(config, "1.0.0", true)
	last.output.await(t, "starting without a take-over")
	last.output.await(t, "ready")
	n.runs(last, "1.0.0", 1)
	for i := range 3 {
		of := n.Junction("nic-in")
		version := fmt.Sprintf("1.%d.0", i+1)
		next := n.start(config, version, true)
		next.output.await(t, "ready")
		if err := <-last.ended; err != nil {
			t.Error(err)
		}
		if of.Closed() || n.Junction("nic-in") == of {
			t.Errorf("the junction of the previous instance is closed: %v", of.Closed())
		}
		if text := last.output.String(); !strings.Contains(text, "another process took over") || strings.Contains(text, "from inside ") {
			t.Errorf("the previous instance ended with\n%s", text)
		}
		if text := next.output.String(); !strings.Contains(text, fmt.Sprintf("msg=\"took over\" process=%d version=1.%d.0 paused=", os.Getpid(), i)) {
			t.Errorf("the new instance began with\n%s", text)
		}
		n.runs(next, version, uint64(i+2))
		ask, err := control.Instance{Socket: "x.sock"}.Reporter()
		if err != nil {
			t.Fatal(err)
		}
		if r, _, err := ask(t.Context()); err != nil || r.Takeover == nil || r.Takeover.Count != i+1 || r.Takeover.PauseSeconds <= 0 {
			t.Errorf("%+v, %v; want %d take-overs", r, err, i+1)
		}
		answer, err := http.Get("http://" + parseConfig(t, config).Status.Listen + "/healthz")
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Errorf("the status server answered %v, %v", answer, err)
		}
		last = next
	}
	n.ends(last)
}

// TestReplaceOtherSockets checks that sockets are closed for which the new instance uses
// others.
func TestReplaceOtherSockets(t *testing.T) {
	n, before, after := newNetwork(t), freeAddress(t), freeAddress(t)
	first := n.start(replaceable(before), "1.0.0", false)
	first.output.await(t, "ready")
	second := n.start(replaceable(after), "1.1.0", true)
	second.output.await(t, "ready")
	if err := <-first.ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", before); err == nil {
		t.Error("the status server of the previous instance still listens")
	}
	if c, err := net.Dial("tcp", after); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	n.ends(second)
}

// TestReplaceRefused checks instances that may not or cannot take over. Each must report the
// reason, and the running instance must continue.
func TestReplaceRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		config func(string) string
		fail   string
		want   string
	}{
		"devices": {func(c string) string { return strings.Replace(c, `nic = "nic-in"`, "nic = \"other\"\nqueues = 2", 1) }, "",
			`take over from the instance at "x.sock": its devices differ in inside.nic, inside.queues: restore the configuration, or stop it and start the new one`},
		"port":     {nil, "importPort", `take over from the instance at "x.sock": inside: no such device`},
		"junction": {nil, "importJunction", `take over from the instance at "x.sock": inside: no such device`},
	} {
		t.Run(name, func(t *testing.T) {
			n, config := newNetwork(t), replaceable("")
			first := n.start(config, "1.0.0", false)
			first.output.await(t, "ready")
			n.runs(first, "1.0.0", 1)
			if tt.fail != "" {
				n.Fail(tt.fail, errors.New("no such device"))
			}
			if tt.config != nil {
				config = tt.config(config)
			}
			second := n.start(config, "1.1.0", true)
			if err := <-second.ended; err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
			first.output.await(t, "take-over by another process failed; this process continues")
			n.Fail(tt.fail, nil)
			if n.Junction("nic-in").Closed() {
				t.Error("the junction was closed")
			}
			n.runs(first, "1.0.0", 2)
			third := n.start(replaceable(""), "1.2.0", true)
			third.output.await(t, "ready")
			if err := <-first.ended; err != nil {
				t.Error(err)
			}
			n.runs(third, "1.2.0", 3)
			n.ends(third)
		})
	}
}

// TestReplaceBroken closes the connection of a process that takes over while the wire is held.
// The running process must continue. A third process must be refused meanwhile.
func TestReplaceBroken(t *testing.T) {
	n := newNetwork(t)
	first := n.start(replaceable(freeAddress(t)), "1.0.0", false)
	first.output.await(t, "ready")
	namespace, err := networkNamespace()
	if err != nil {
		t.Fatal(err)
	}
	c := parseConfig(t, replaceable(""))
	begun, err := control.Instance{Socket: "x.sock"}.Exchange(control.RequestReplace, request{
		Format: handedOver, Version: "1.1.0", Namespace: namespace, Devices: [verdict.Sides]rules.Interface{c.Inside, c.Outside},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := begun.Read(make([]byte, 1)); err != nil { // the offer
		t.Fatal(err)
	}
	third := n.start(replaceable(""), "1.2.0", true)
	if err := <-third.ended; err == nil || !strings.Contains(err.Error(), "another take-over is in progress") {
		t.Errorf("the third process: %v", err)
	}
	for _, said := range []string{"copy", "hold"} {
		text := fmt.Sprintf(`{"kind":%q}`, said)
		if _, err := fmt.Fprintf(begun, "m\x00\x00\x00%c%s", len(text), text); err != nil {
			t.Fatal(err)
		}
	}
	for text := ""; !strings.Contains(text, `"held"`); { // the first state comes before
		b := make([]byte, 1<<16)
		n, err := begun.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		text += string(b[:n])
	}
	for _, l := range first.daemon.listeners {
		if !l.isPaused() {
			t.Errorf("%v: clients are accepted while the wire is held", l.Addr())
		}
	}
	if err := begun.Close(); err != nil {
		t.Fatal(err)
	}
	first.output.await(t, "version=1.1.0")
	n.runs(first, "1.0.0", 1)
	n.ends(first)
}

// TestReplaceCheck checks the reasons for which a request is refused.
func TestReplaceCheck(t *testing.T) {
	d := New(Options{Startup: &Startup{config: parseConfig(t, replaceable(""))}, Stderr: io.Discard})
	d.replaceable = true
	namespace, err := networkNamespace()
	if err != nil {
		t.Fatal(err)
	}
	good := request{Format: handedOver, Version: "9", Namespace: namespace, Devices: [verdict.Sides]rules.Interface{d.config.Inside, d.config.Outside}}
	for name, tt := range map[string]struct {
		change func(*request, *giver)
		want   string
	}{
		"":          {func(*request, *giver) {}, ""},
		"format":    {func(r *request, _ *giver) { r.Format = 7 }, "it hands over format 1, but version 9 needs format 7: stop it, then start the new one"},
		"namespace": {func(r *request, _ *giver) { r.Namespace = "net:[1]" }, "it is in another network namespace"},
		"user":      {func(_ *request, g *giver) { g.user = 4242 }, fmt.Sprintf("it belongs to user %d, and only a process of this user may take over", os.Geteuid())},
		"sidecar":   {func(_ *request, g *giver) { g.daemon.replaceable = false }, "a running sidecar cannot be replaced: stop it, then start the new one"},
		"offload":   {func(r *request, _ *giver) { r.Devices[verdict.Outside].Offload = false }, "its devices differ in outside.offload: restore the configuration, or stop it and start the new one"},
	} {
		r, g := good, &giver{daemon: d, user: os.Geteuid()}
		tt.change(&r, g)
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var got request
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if err := g.check(&got); (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
			t.Errorf("%s: got %v\nwant %s", name, err, tt.want)
		}
		d.replaceable = true
	}
}

func parseConfig(t *testing.T, text string) *rules.Config {
	t.Helper()
	c, err := rules.Parse("x.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
