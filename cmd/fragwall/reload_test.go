package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/filter"
	"fragwall/rules"
)

const reloadable = "[inside]\ntap = \"a\"\n[outside]\ntap = \"b\"\n[sets]\nallowed = { file = \"allowed.txt\" }\n" +
	"[[rule]]\nname = \"r\"\naction = \"accept\"\nsrc = \"@allowed\"\n"

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newReloader returns a reloader of "x.toml", which it writes, the policies
// that it applies, and its log.
func newReloader(t *testing.T) (r *reloader, applied *[]*filter.Policy, log *strings.Builder) {
	t.Chdir(t.TempDir())
	write(t, "x.toml", reloadable)
	write(t, "allowed.txt", "10.0.0.1\n")
	config, err := rules.Load("x.toml")
	if err != nil {
		t.Fatal(err)
	}
	applied, log = new([]*filter.Policy), new(strings.Builder)
	withoutTime := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	return &reloader{path: "x.toml", config: config, log: slog.New(slog.NewTextHandler(log, withoutTime)),
		apply: func(c *rules.Config) { *applied = append(*applied, c.Policy) }}, applied, log
}

func TestReload(t *testing.T) {
	const summary = "1 rule, fragments reassemble, default drop"
	tests := []struct {
		name       string
		file, text string
		want       outcome
		log        string
	}{
		{"the same", "x.toml", reloadable, outcome{Text: "reloaded x.toml: " + summary + "\ngeneration 2: nothing changed"},
			"level=INFO msg=reloaded generation=2 changes=\"nothing changed\" policy=\"" + summary + "\"\n"},
		{"another set", "allowed.txt", "10.0.0.2\n", outcome{Text: "reloaded x.toml: " + summary + "\ngeneration 2: rules changed: \"r\"; sets changed: \"allowed\""},
			`level=INFO msg=reloaded generation=2 changes="rules changed: \"r\"; sets changed: \"allowed\"" policy="` + summary + "\"\n"},
		{"mistakes", "x.toml", strings.ReplaceAll(reloadable, "accept", "acept") + "dst = 5\n", outcome{2,
			"x.toml:9: action: \"acept\" is unknown; did you mean \"accept\"?\nx.toml:11: dst: 5 is a number; want an address, a prefix or a range in a string, such as \"10.0.0.1\", \"2001:db8::/32\" or \"10.0.0.1-10.0.0.9\""},
			`level=ERROR msg="not reloaded: the rules stay as they are" mistake="x.toml:9: action: \"acept\" is unknown; did you mean \"accept\"?"` + "\n" +
				`level=ERROR msg="not reloaded: the rules stay as they are" mistake="x.toml:11: dst: 5 is a number; want an address, a prefix or a range in a string, such as \"10.0.0.1\", \"2001:db8::/32\" or \"10.0.0.1-10.0.0.9\""` + "\n"},
		{"a mistake in a set", "allowed.txt", "10.0.0.2/8\n", outcome{2, "allowed.txt:1: \"10.0.0.2/8\" has host bits set; did you mean \"10.0.0.0/8\"?"},
			`level=ERROR msg="not reloaded: the rules stay as they are" mistake="allowed.txt:1: \"10.0.0.2/8\" has host bits set; did you mean \"10.0.0.0/8\"?"` + "\n"},
		{"other devices", "x.toml", strings.Replace(reloadable, `"a"`, `"c"`, 1) + "[fragments]\nmemory = \"1MiB\"\n",
			outcome{2, "x.toml: can't change while the box runs: inside.tap, fragments.memory; restart it, or put them back"},
			`level=ERROR msg="not reloaded: the rules stay as they are" mistake="x.toml: can't change while the box runs: inside.tap, fragments.memory; restart it, or put them back"` + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, applied, log := newReloader(t)
			write(t, tt.file, tt.text)
			if got := r.reload(); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if log.String() != tt.log {
				t.Errorf("logged\n%s\nwant\n%s", log, tt.log)
			}
			if changed := len(*applied) == 1; changed != (tt.want.Code == 0) {
				t.Errorf("%d policies applied", len(*applied))
			}
		})
	}
}

// TestReloadUnreadable has files that never end, or never begin, be mistakes,
// and read them when they are mended.
func TestReloadUnreadable(t *testing.T) {
	for _, file := range []string{"x.toml", "allowed.txt"} {
		for target, want := range map[string]string{
			"pipe": "is a pipe; want a regular file", "/dev/zero": "is a device; want a regular file",
			"/proc/self/pagemap": "is a file that the kernel makes up; want a regular one",
		} {
			r, applied, log := newReloader(t)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(syscall.Mkfifo("pipe", 0o600), os.Remove(file), os.Symlink(target, file)); err != nil {
				t.Fatal(err)
			}
			for range 20 { // more than may wait
				if got := r.reload(); got.Code != exit.Usage || !strings.HasSuffix(got.Text, want) {
					t.Fatalf("%s: %+v, want %s", target, got, want)
				}
			}
			if !strings.Contains(log.String(), want) {
				t.Errorf("logged %s", log)
			}
			if err := errors.Join(os.Remove(file), os.WriteFile(file, text, 0o600)); err != nil {
				t.Fatal(err)
			}
			if got := r.reload(); got.Code != 0 || len(*applied) != 1 {
				t.Errorf("mended: %+v, %d policies applied", got, len(*applied))
			}
		}
	}
}

// serveTest serves a socket until the end of the test.
func serveTest(t *testing.T, path string, known requests) {
	t.Helper()
	l, err := listenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { serveSocket(ctx, l, known) })
	t.Cleanup(func() {
		cancel()
		serving.Wait()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is left: %v", err)
		}
	})
}

func TestReloadCommand(t *testing.T) {
	r, applied, _ := newReloader(t)
	serveTest(t, "s.sock", r.requests())
	if info, err := os.Stat("s.sock"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others may open the socket", info.Mode(), err)
	}
	stdout, stderr, code := runCommand(t, "reload", "--socket", "s.sock")
	if want := "reloaded x.toml: 1 rule, fragments reassemble, default drop\ngeneration 2: nothing changed\n"; stdout != want || stderr != "" || code != 0 {
		t.Errorf("exit %d: %q, %q", code, stdout, stderr)
	}
	write(t, "x.toml", "policy = 5\n")
	stdout, stderr, code = runCommand(t, "reload", "--socket", "s.sock")
	if stdout != "" || !strings.HasPrefix(stderr, "x.toml:1: ") || code != exit.Usage {
		t.Errorf("exit %d: %q, %q", code, stdout, stderr)
	}
	if len(*applied) != 1 {
		t.Errorf("%d policies applied, want 1", len(*applied))
	}
	c, err := net.Dial("unix", "s.sock") // says nothing, and changes nothing
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestDefaultSocket finds the one instance there is, or is told which.
func TestDefaultSocket(t *testing.T) {
	r, applied, log := newReloader(t)
	runtime := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	defer func(old string) { rootSockets = old }(rootSockets)
	rootSockets = filepath.Join(runtime, "root")
	if _, stderr, code := runCommand(t, "reload"); code != exit.Failed || !strings.Contains(stderr, "is it running?") {
		t.Errorf("exit %d: %q", code, stderr)
	}
	path, err := socketPath(r.config)
	if err != nil {
		t.Fatal(err)
	}
	serveTest(t, path, r.requests())
	for _, args := range [][]string{{"reload"}, {"reload", "-c", "x.toml"}} {
		if _, stderr, code := runCommand(t, args...); code != 0 {
			t.Errorf("%q: exit %d: %q", args, code, stderr)
		}
	}
	if _, stderr, code := runCommand(t, "reload", "-c", "other.toml"); code != exit.Failed || !strings.Contains(stderr, "runs with other.toml") {
		t.Errorf("exit %d: %q", code, stderr)
	}
	if len(*applied) != 2 {
		t.Errorf("%d policies applied, want 2", len(*applied))
	}
	for text, mistake := range map[string]string{
		"policy = 5\n": "x.toml:1: ",
		strings.Replace(reloadable, `"a"`, `"c"`, 1): "can't change while the box runs: inside.tap",
	} { // the instance says what is wrong, too
		write(t, "x.toml", text)
		log.Reset()
		_, stderr, code := runCommand(t, "reload", "-c", "x.toml")
		if code != exit.Usage || !strings.Contains(stderr, mistake) || !strings.Contains(log.String(), mistake) {
			t.Errorf("exit %d: %q, logged %q", code, stderr, log)
		}
	}
	killed := killedSocket(t, filepath.Join(filepath.Dir(path), "killed.sock"))
	write(t, filepath.Join(filepath.Dir(path), "file.sock"), "")
	if _, stderr, _ := runCommand(t, "reload"); !strings.Contains(stderr, "inside.tap") && !strings.Contains(stderr, "x.toml:1: ") {
		t.Errorf("the socket of one who was killed counts: %q", stderr)
	}
	if _, err := os.Lstat(killed); !os.IsNotExist(err) {
		t.Errorf("the socket of one who was killed is still there: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(path), "file.sock")); err != nil {
		t.Error(err)
	}
	serveTest(t, filepath.Join(filepath.Dir(path), "other.sock"), r.requests())
	if _, stderr, code := runCommand(t, "reload"); code != exit.Usage || !strings.Contains(stderr, "several instances") {
		t.Errorf("exit %d: %q", code, stderr)
	}
	if _, err := listenSocket(path); err == nil || !strings.Contains(err.Error(), "another instance") {
		t.Errorf("%v", err)
	}
}

// killedSocket leaves a socket as an instance does that is killed.
func killedSocket(t *testing.T, path string) string {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	return path
}

// TestOldSocket starts where instances were killed.
func TestOldSocket(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	defer func(old string) { rootSockets = old }(rootSockets)
	rootSockets = filepath.Join(dir, "fragwall")
	if err := ownDirectory(rootSockets); err != nil {
		t.Fatal(err)
	}
	path := killedSocket(t, filepath.Join(rootSockets, "s.sock"))
	other := killedSocket(t, filepath.Join(rootSockets, "other.sock"))
	begun := filepath.Join(rootSockets, newPrefix+"1")
	if err := os.Mkdir(begun, 0o700); err != nil {
		t.Fatal(err)
	}
	killedSocket(t, filepath.Join(begun, "s"))
	var o outcome
	if err := askSocket(path, requestReload, reloadPatience, &o); err == nil || !strings.Contains(err.Error(), "connection refused: is fragwall running?") {
		t.Errorf("%v", err)
	}
	serveTest(t, path, requests{requestReload: func() any { return outcome{Text: "yes"} }})
	if err := askSocket(path, requestReload, reloadPatience, &o); err != nil || o.Text != "yes" {
		t.Errorf("%v, %v", o, err)
	}
	for _, left := range []string{other, begun} {
		if _, err := os.Lstat(left); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", left, err)
		}
	}
}

// stoppedSocket listens and never answers, as a stopped instance does.
func stoppedSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// TestStoppedInstances has instances that don't answer beside one that does.
func TestStoppedInstances(t *testing.T) {
	r, applied, _ := newReloader(t)
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	defer func(old string) { rootSockets = old }(rootSockets)
	rootSockets = filepath.Join(dir, "fragwall")
	path, err := socketPath(r.config)
	if err != nil {
		t.Fatal(err)
	}
	serveTest(t, path, r.requests())
	for _, name := range []string{"a.sock", "b.sock", "z.sock"} {
		stoppedSocket(t, filepath.Join(rootSockets, name))
	}
	if _, stderr, code := runCommand(t, "reload", "-c", "x.toml"); code != 0 || len(*applied) != 1 {
		t.Errorf("exit %d: %q, %d applied", code, stderr, len(*applied))
	}
	if _, stderr, code := runCommand(t, "reload", "-c", "other.toml"); code != exit.Failed || !strings.Contains(stderr, "no answer from "+rootSockets+"/a.sock, ") {
		t.Errorf("exit %d: %q", code, stderr)
	}
	if _, stderr, code := runCommand(t, "reload"); code != exit.Usage || !strings.Contains(stderr, "several instances") || !strings.Contains(stderr, "z.sock") {
		t.Errorf("exit %d: %q", code, stderr)
	}
	if _, stderr, code := runCommand(t, "reload", "--socket", filepath.Join(rootSockets, "a.sock")); code != exit.Failed || !strings.Contains(stderr, "i/o timeout") {
		t.Errorf("exit %d: %q", code, stderr)
	}
	if _, stderr, code := runCommand(t, "status", "-c", "x.toml"); code != exit.Failed || !strings.Contains(stderr, `no answer to "status"`) {
		t.Errorf("exit %d: %q", code, stderr)
	}
}

// TestSlowReload asks an instance for more while it reloads.
func TestSlowReload(t *testing.T) {
	t.Chdir(t.TempDir())
	began, end := make(chan struct{}), make(chan struct{})
	serveTest(t, "s.sock", requests{
		requestReload: func() any { close(began); <-end; return outcome{Text: "reloaded"} },
		requestFile:   func() any { return outcome{Text: "x.toml"} },
	})
	var reloading sync.WaitGroup
	reloading.Go(func() {
		if stdout, stderr, code := runCommand(t, "reload", "--socket", "s.sock"); stdout != "reloaded\n" || code != 0 {
			t.Errorf("exit %d: %q, %q", code, stdout, stderr)
		}
	})
	<-began
	if file, err := askFile("s.sock"); file != "x.toml" || err != nil {
		t.Errorf("%q, %v", file, err)
	}
	close(end)
	reloading.Wait()
}

// TestReloadPrintsText has an instance answer with what would control a
// terminal.
func TestReloadPrintsText(t *testing.T) {
	t.Chdir(t.TempDir())
	serveTest(t, "s.sock", requests{requestFile: func() any { return outcome{} }, requestReload: func() any {
		return outcome{Text: "ü \x1b]0;title\a\x1b[2J\r\u009b1m\u202e\nnext \"line\""}
	}})
	stdout, _, code := runCommand(t, "reload", "--socket", "s.sock")
	if want := `ü \x1b]0;title\a\x1b[2J\r\u009b1m\u202e` + "\nnext \"line\"\n"; stdout != want || code != 0 {
		t.Errorf("exit %d: %q, want %q", code, stdout, want)
	}
}

// TestReloadDistrustsDirectory asks for a reload where the default directory
// belongs to others, too.
func TestReloadDistrustsDirectory(t *testing.T) {
	runtime := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	defer func(old string) { rootSockets = old }(rootSockets)
	rootSockets = filepath.Join(runtime, "root")
	dir := socketDirectories()[0]
	asked := false
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	serveTest(t, filepath.Join(dir, "x.sock"), requests{
		requestReload: func() any { asked = true; return outcome{} },
		requestFile:   func() any { asked = true; return outcome{} },
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"reload"}, {"reload", "-c", "x.toml"}, {"reload", "--socket", filepath.Join(dir, "x.sock")}} {
		if _, stderr, code := runCommand(t, args...); code != exit.Failed || !strings.Contains(stderr, "not this user's alone") || asked {
			t.Errorf("%q: exit %d: %q, asked %v", args, code, stderr, asked)
		}
	}
}

func TestSocketDirectoryIsOurs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := ownDirectory(dir); err != nil {
		t.Fatal(err)
	}
	if err := ownDirectory(dir); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := ownDirectory(dir); err == nil || !strings.Contains(err.Error(), "not this user's alone") {
		t.Errorf("%v", err)
	}
}
