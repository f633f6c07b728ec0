package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/box/boxtest"
	"fragwall/packet/packettest"
	"fragwall/rules"
)

const stateful = "[inside]\ntap = \"in\"\nmtu = 1500\n[outside]\ntap = \"out\"\nmtu = 1500\n[policy]\nstateful = true\n" +
	"[[rule]]\nname = \"out\"\naction = \"accept\"\nfrom = \"inside\"\n"

// kept is a box in a directory where its flows are kept.
type kept struct {
	*testing.T
	dir    string
	output *output
	log    *slog.Logger
}

func newKept(t *testing.T) *kept {
	o := &output{changed: make(chan struct{})}
	return &kept{t, t.TempDir(), o, slog.New(slog.NewTextHandler(o, nil))}
}

func (k *kept) keeper() *flowKeeper {
	return openFlowKeeper(State{Directory: k.dir, Given: true}, "in", "out", k.log)
}

// run has a box run, with the flows that were kept, and keeps its flows at the end. What
// comes out of it for the frame of each port is returned.
func (k *kept) run(during func(kernel *boxtest.Kernel, b *box.Box)) {
	k.Helper()
	k.Chdir(k.TempDir())
	write(k.T, "x.toml", stateful)
	config, err := rules.Load("x.toml")
	if err != nil {
		k.Fatal(err)
	}
	kernel := boxtest.New()
	b, err := box.Open(kernel.Box(), box.Setup{Config: config, Log: k.log})
	if err != nil {
		k.Fatal(err)
	}
	keeper := k.keeper()
	keeper.restore(b)
	ctx, cancel := context.WithCancel(k.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	during(kernel, b)
	cancel()
	if err := <-ended; err != nil {
		k.Error(err)
	}
	if err := b.Close(); err != nil {
		k.Error(err)
	}
	keeper.save(b, false)
}

var (
	query = packettest.UDP(netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2"), []byte("x")).Frame()
	reply = packettest.UDP(netip.MustParseAddrPort("192.0.2.2:2"), netip.MustParseAddrPort("192.0.2.1:1"), []byte("x")).Frame()
)

// pass has a frame go from one port to another.
func (k *kept) pass(kernel *boxtest.Kernel, from, to string, frame []byte) {
	k.Helper()
	kernel.Port(from).Inject(frame)
	if f, err := kernel.Port(to).Next(k.Context()); err != nil || !slices.Equal(f.Data, frame) {
		k.Errorf("%x, %v", f.Data, err)
	}
}

// begin has a box know a flow, and keep it.
func (k *kept) begin() {
	k.Helper()
	k.run(func(kernel *boxtest.Kernel, _ *box.Box) { k.pass(kernel, "in", "out", query) })
}

// logged checks that the log has all these texts.
func (k *kept) logged(texts ...string) {
	k.Helper()
	for _, text := range texts {
		if log := k.output.String(); !strings.Contains(log, text) {
			k.Errorf("no %q in the log:\n%s", text, log)
		}
	}
}

// files returns the files in the directory.
func (k *kept) files() []string {
	files, err := filepath.Glob(filepath.Join(k.dir, "*"))
	if err != nil {
		k.Fatal(err)
	}
	return files
}

// TestFlowsAreKept has a reply pass after a stop and a start. What was read is gone: a
// kill then leaves none.
func TestFlowsAreKept(t *testing.T) {
	k := newKept(t)
	k.begin()
	if n := len(k.files()); n != 1 {
		t.Fatalf("%d files, want one", n)
	}
	k.run(func(kernel *boxtest.Kernel, _ *box.Box) {
		if n := len(k.files()); n != 0 {
			t.Errorf("%d files while the box runs", n)
		}
		k.pass(kernel, "out", "in", reply)
	})
	k.logged("flows are kept", "flows restored")
}

// TestFlowsAreLost starts with what can't be read: the box runs without flows, and the log
// says why.
func TestFlowsAreLost(t *testing.T) {
	change := func(change func(b []byte) []byte) func(*kept, string) {
		return func(k *kept, file string) {
			b, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file, change(b), 0o600)
			}
			if err != nil {
				k.Fatal(err)
			}
		}
	}
	for name, damage := range map[string]func(*kept, string){
		"damaged":   change(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }),
		"too short": change(func(b []byte) []byte { return b[:20] }),
		"too long":  func(k *kept, file string) { _ = os.Truncate(file, 1<<40) },

		"wrong checksum":        change(func(b []byte) []byte { return b[:len(b)-1] }),
		"other users can write": func(k *kept, file string) { _ = os.Chmod(file, 0o666) },
		"not a regular file":    func(k *kept, file string) { _ = os.Remove(file); _ = os.Mkdir(file, 0o700) },
		"path escapes from par": func(k *kept, file string) { _ = os.Remove(file); _ = os.Symlink("/etc/passwd", file) },
	} {
		t.Run(name, func(t *testing.T) {
			k := newKept(t)
			k.begin()
			damage(k, k.files()[0])
			k.run(func(_ *boxtest.Kernel, b *box.Box) {
				if n := b.Policy().Flows(); n != 0 {
					t.Errorf("%d flows", n)
				}
			})
			k.logged("cannot restore flows", name)
			if files := k.files(); len(files) != 0 {
				t.Errorf("%v is still there", files)
			}
		})
	}
}

// TestFlowsAreNotKept asks for a directory that others can write to.
func TestFlowsAreNotKept(t *testing.T) {
	k := newKept(t)
	if err := os.Chmod(k.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	k.begin()
	k.logged("cannot keep flows over a restart")
	if k.keeper() != nil || openFlowKeeper(State{}, "in", "out", k.log) != nil {
		t.Error("there is a keeper")
	}
}

// TestNoDirectory has no directory, or loses it while the box runs: one line says so.
func TestNoDirectory(t *testing.T) {
	k := newKept(t)
	file := filepath.Join(k.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k.dir = filepath.Join(file, "below")
	k.begin()
	if text := k.output.String(); strings.Count(text, "cannot keep flows over a restart") != 1 {
		t.Error(text)
	}

	k = newKept(t)
	k.run(func(kernel *boxtest.Kernel, _ *box.Box) {
		k.pass(kernel, "in", "out", query)
		if err := os.RemoveAll(k.dir); err != nil {
			t.Fatal(err)
		}
	})
	if text := k.output.String(); strings.Count(text, "cannot keep flows over a restart") != 1 {
		t.Error(text)
	}
}

// TestOldFlowsAreRemoved removes what was kept of a wire that did not come back.
func TestOldFlowsAreRemoved(t *testing.T) {
	k := newKept(t)
	old, other := filepath.Join(k.dir, "a-b@1.flows"), filepath.Join(k.dir, "x.tar")
	for _, file := range []string{old, other} {
		err := os.WriteFile(file, nil, 0o600)
		if err == nil {
			err = os.Chtimes(file, time.Time{}, time.Now().Add(-flowsKept-time.Hour))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	k.keeper()
	if files := k.files(); !slices.Equal(files, []string{other}) {
		t.Errorf("there are %s", strings.Join(files, ", "))
	}
}

// TestFlowsAreDiscarded runs a box that keeps no flows between two that do: the last one does not
// know the flows of the first one.
func TestFlowsAreDiscarded(t *testing.T) {
	k := newKept(t)
	k.begin()
	if openFlowKeeper(State{Directory: k.dir, Given: true, Discard: true}, "in", "out", k.log) != nil {
		t.Error("flows are kept")
	}
	if n := len(k.files()); n != 0 {
		t.Errorf("%d files, want none", n)
	}
	missing := filepath.Join(k.dir, "missing")
	if openFlowKeeper(State{Directory: missing, Discard: true}, "in", "out", k.log) != nil {
		t.Error("flows are kept")
	}
	if _, err := os.Stat(missing); !os.IsNotExist(err) {
		t.Errorf("the directory was made: %v", err)
	}
}
