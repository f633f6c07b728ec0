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

// kept is the directory in which boxes save their flows, and their log.
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

// run runs a box that restores the saved flows, calls during, and saves the flows at the end.
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

// pass expects a frame to pass from one port to another.
func (k *kept) pass(kernel *boxtest.Kernel, from, to string, frame []byte) {
	k.Helper()
	kernel.Port(from).Inject(frame)
	if f, err := kernel.Port(to).Next(k.Context()); err != nil || !slices.Equal(f.Data, frame) {
		k.Errorf("%x, %v", f.Data, err)
	}
}

// begin runs a box that begins a flow and saves it.
func (k *kept) begin() {
	k.Helper()
	k.run(func(kernel *boxtest.Kernel, _ *box.Box) { k.pass(kernel, "in", "out", query) })
}

// logged checks that the log contains all texts.
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

// TestFlowsAreKept checks that a reply passes after a stop and a start, and that the file is
// removed once it was read.
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

// TestFlowsAreLost checks that a box starts without flows if the file cannot be read, and that
// the reason is logged.
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
				t.Errorf("%v still exists", files)
			}
		})
	}
}

// TestFlowsAreNotKept checks that a directory that other users can write to is not used.
func TestFlowsAreNotKept(t *testing.T) {
	k := newKept(t)
	if err := os.Chmod(k.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	k.begin()
	k.logged("cannot keep flows over a restart")
	if k.keeper() != nil || openFlowKeeper(State{}, "in", "out", k.log) != nil {
		t.Error("openFlowKeeper returned a keeper")
	}
}

// TestNoDirectory checks that one log line reports a directory that cannot be created, or that is
// removed while the box runs.
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

// TestOldFlowsAreRemoved checks that old files are removed.
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
		t.Errorf("the files are %s", strings.Join(files, ", "))
	}
}

// TestFlowsAreDiscarded runs a box that discards flows between two that save them. The last one
// must not know the flows of the first one.
func TestFlowsAreDiscarded(t *testing.T) {
	k := newKept(t)
	k.begin()
	if openFlowKeeper(State{Directory: k.dir, Given: true, Discard: true}, "in", "out", k.log) != nil {
		t.Error("openFlowKeeper returned a keeper")
	}
	if n := len(k.files()); n != 0 {
		t.Errorf("%d files, want none", n)
	}
	missing := filepath.Join(k.dir, "missing")
	if openFlowKeeper(State{Directory: missing, Discard: true}, "in", "out", k.log) != nil {
		t.Error("openFlowKeeper returned a keeper")
	}
	if _, err := os.Stat(missing); !os.IsNotExist(err) {
		t.Errorf("the directory was created: %v", err)
	}
}
