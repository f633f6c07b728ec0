package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"fragwall/cmd/fragwall/internal/exit"
)

// serve serves a socket until the end of the test.
func serve(t *testing.T, path string, handlers Handlers) {
	t.Helper()
	serveStreams(t, path, handlers, nil)
}

func serveStreams(t *testing.T, path string, handlers Handlers, streams Streams) *Listener {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want mode 0600", info, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { l.Serve(ctx, Service{Handlers: handlers, Streams: streams}) })
	t.Cleanup(func() {
		cancel()
		serving.Wait()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("the socket still exists: %v", err)
		}
	})
	return l
}

// newInstance returns the handlers of an instance that runs with x.toml, and its number of
// reloads.
func newInstance(t *testing.T) (handlers Handlers, reloads *int) {
	t.Chdir(t.TempDir())
	file, err := filepath.Abs("x.toml")
	if err != nil {
		t.Fatal(err)
	}
	reloads = new(int)
	return Handlers{
		RequestFile:   func() any { return Outcome{Text: file} },
		RequestReload: func() any { *reloads++; return Outcome{Text: "reloaded"} },
	}, reloads
}

// expectError checks that an error contains texts, and whether it is a usage error.
func expectError(t *testing.T, err error, usage bool, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q, want %q in it", err, text)
		}
	}
	if wrong := (*exit.UsageError)(nil); errors.As(err, &wrong) != usage {
		t.Errorf("%q: wrong usage %v, want %v", err, !usage, usage)
	}
}

// TestDefaultSocket checks that a client finds the only instance, and that it lists them if
// there are several.
func TestDefaultSocket(t *testing.T) {
	handlers, reloads := newInstance(t)
	runtime := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	defer func(old string) { rootDirectory = old }(rootDirectory)
	rootDirectory = filepath.Join(runtime, "root")
	_, err := Instance{}.Reload()
	expectError(t, err, false, "is it running?")
	path, err := Path("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, path, handlers)
	for _, file := range []string{"", "x.toml"} {
		if o, err := (Instance{File: file}).Reload(); err != nil || o != (Outcome{Text: "reloaded"}) {
			t.Errorf("%q: %+v, %v", file, o, err)
		}
	}
	_, err = Instance{File: "other.toml"}.Reload()
	expectError(t, err, false, "runs with other.toml")
	if *reloads != 2 {
		t.Errorf("%d reloads, want 2", *reloads)
	}
	killed := killedSocket(t, filepath.Join(filepath.Dir(path), "killed.sock"))
	file := filepath.Join(filepath.Dir(path), "file.sock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Instance{}).Reload(); err != nil || *reloads != 3 {
		t.Errorf("the socket of a killed instance counts: %v", err)
	}
	if _, err := os.Lstat(killed); !os.IsNotExist(err) {
		t.Errorf("the socket of a killed instance still exists: %v", err)
	}
	if _, err := os.Lstat(file); err != nil {
		t.Error(err)
	}
	serve(t, filepath.Join(filepath.Dir(path), "other.sock"), handlers)
	_, err = Instance{}.Reload()
	expectError(t, err, true, "several instances")
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another instance") {
		t.Errorf("%v", err)
	}
}

// killedSocket leaves a socket as a killed instance does.
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

// TestOldSocket checks that an instance starts although killed instances have left sockets.
func TestOldSocket(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	defer func(old string) { rootDirectory = old }(rootDirectory)
	rootDirectory = filepath.Join(dir, "fragwall")
	if err := ownDirectory(rootDirectory); err != nil {
		t.Fatal(err)
	}
	path := killedSocket(t, filepath.Join(rootDirectory, "s.sock"))
	other := killedSocket(t, filepath.Join(rootDirectory, "other.sock"))
	begun := filepath.Join(rootDirectory, newPrefix+"1")
	if err := os.Mkdir(begun, 0o700); err != nil {
		t.Fatal(err)
	}
	killedSocket(t, filepath.Join(begun, "s"))
	var o Outcome
	if err := ask(path, RequestReload, reloadTimeout, &o); err == nil || !strings.Contains(err.Error(), "connection refused: is fragwall running?") {
		t.Errorf("%v", err)
	}
	serve(t, path, Handlers{RequestReload: func() any { return Outcome{Text: "yes"} }})
	if err := ask(path, RequestReload, reloadTimeout, &o); err != nil || o.Text != "yes" {
		t.Errorf("%v, %v", o, err)
	}
	for _, left := range []string{other, begun} {
		if _, err := os.Lstat(left); !os.IsNotExist(err) {
			t.Errorf("%s still exists: %v", left, err)
		}
	}
}

// stoppedSocket listens but never answers, as a stopped instance does.
func stoppedSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// TestStoppedInstances checks the client's choice if some instances do not answer.
func TestStoppedInstances(t *testing.T) {
	handlers, reloads := newInstance(t)
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	defer func(old string) { rootDirectory = old }(rootDirectory)
	rootDirectory = filepath.Join(dir, "root")
	path, err := Path("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, path, handlers)
	for _, name := range []string{"a.sock", "b.sock", "z.sock"} {
		stoppedSocket(t, filepath.Join(filepath.Dir(path), name))
	}
	if _, err := (Instance{File: "x.toml"}).Reload(); err != nil || *reloads != 1 {
		t.Errorf("%v, %d reloads", err, *reloads)
	}
	_, err = Instance{File: "other.toml"}.Reload()
	expectError(t, err, false, "no answer within 1s from "+filepath.Dir(path)+"/a.sock, ")
	_, err = Instance{}.Reload()
	expectError(t, err, true, "several instances", "z.sock")
	_, err = Instance{Socket: filepath.Join(filepath.Dir(path), "a.sock")}.Reload()
	expectError(t, err, false, "no answer within 1s: is fragwall stopped?")
	status, err := Instance{File: "x.toml"}.Reporter()
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = status(t.Context())
	expectError(t, err, false, "no answer")
}

// TestSlowReload sends another request while an instance reloads.
func TestSlowReload(t *testing.T) {
	t.Chdir(t.TempDir())
	began, end := make(chan struct{}), make(chan struct{})
	serve(t, "s.sock", Handlers{
		RequestReload: func() any { close(began); <-end; return Outcome{Text: "reloaded"} },
		RequestFile:   func() any { return Outcome{Text: "x.toml"} },
	})
	var reloading sync.WaitGroup
	reloading.Go(func() {
		if o, err := (Instance{Socket: "s.sock"}).Reload(); o.Text != "reloaded" || err != nil {
			t.Errorf("%+v, %v", o, err)
		}
	})
	<-began
	if file, err := askFile("s.sock"); file != "x.toml" || err != nil {
		t.Errorf("%q, %v", file, err)
	}
	close(end)
	reloading.Wait()
}

// TestReloadDistrustsDirectory checks that a client does not use a default directory that other
// users can access.
func TestReloadDistrustsDirectory(t *testing.T) {
	runtime := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	defer func(old string) { rootDirectory = old }(rootDirectory)
	rootDirectory = filepath.Join(runtime, "root")
	dir := Directories()[0]
	asked := false
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	serve(t, filepath.Join(dir, "x.sock"), Handlers{
		RequestReload: func() any { asked = true; return Outcome{} },
		RequestFile:   func() any { asked = true; return Outcome{} },
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, which := range []Instance{{}, {File: "x.toml"}, {Socket: filepath.Join(dir, "x.sock")}} {
		_, err := which.Reload()
		expectError(t, err, false, "other users can access it")
		if asked {
			t.Errorf("%q: the instance was asked", which)
		}
	}
}

// TestDirectoryOfRoot checks the errors for a user other than root whose instance may be
// root's.
func TestDirectoryOfRoot(t *testing.T) {
	defer func(old string) { rootDirectory = old }(rootDirectory)
	rootDirectory = filepath.Join(t.TempDir(), "root")
	t.Setenv("XDG_RUNTIME_DIR", "")
	if err := os.Mkdir(rootDirectory, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(rootDirectory, "x.sock")
	serve(t, path, Handlers{RequestFile: func() any { return Outcome{Text: "x.toml"} }})
	if os.Geteuid() != 0 {
		if err := os.Chmod(rootDirectory, 0); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(rootDirectory, 0o700)
	} else {
		const nobody = 65534
		if err := syscall.Setresuid(-1, nobody, -1); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Setresuid(-1, 0, -1); err != nil {
				t.Fatal(err)
			}
		}()
	}
	for which, want := range map[Instance]string{
		{}:               "Only root may use sockets in " + rootDirectory,
		{File: "x.toml"}: "Only root may use sockets in " + rootDirectory,
		{Socket: path}:   "permission denied: only its owner and root may use it",
	} {
		_, err := which.Reload()
		expectError(t, err, false, want)
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
	if err := ownDirectory(dir); err == nil || !strings.Contains(err.Error(), "other users can access it") {
		t.Errorf("%v", err)
	}
}
