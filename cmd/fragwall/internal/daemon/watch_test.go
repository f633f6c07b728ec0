package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// only returns a function that returns files to watch.
func only(paths ...string) func() []string {
	return func() []string { return paths }
}

// watched watches files. expect waits for a change to be reported.
func watched(t *testing.T, paths ...string) (expect func(what string)) {
	t.Helper()
	w, err := newWatcher(only(paths...))
	if err == nil {
		err = w.follow()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	told, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		w.run(ctx, slog.New(slog.DiscardHandler), func() bool {
			select {
			case told <- struct{}{}:
			case <-ctx.Done():
			}
			return true
		})
	}()
	t.Cleanup(func() { stop(); <-ended })
	return func(what string) {
		t.Helper()
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not reported", what)
		}
	}
}

func ok(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestWatchFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fragwall.toml")
	ok(t, os.WriteFile(path, []byte("one"), 0o600))
	expect := watched(t, path)
	ok(t, os.WriteFile(path, []byte("two"), 0o600))
	expect("a write")
	ok(t, os.WriteFile(path+"~", []byte("three"), 0o600), os.Rename(path+"~", path))
	expect("another file in its place")
	ok(t, os.Remove(path))
	expect("its end")
	ok(t, os.WriteFile(path, []byte("four"), 0o600))
	expect("its return")
}

// TestWatchConfigMap changes a file as Kubernetes does: the name of the file is a link into
// ..data, which is a link to a directory with a time in its name.
func TestWatchConfigMap(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fragwall.toml")
	publish := func(version string) {
		t.Helper()
		ok(t,
			os.Mkdir(filepath.Join(dir, version), 0o755),
			os.WriteFile(filepath.Join(dir, version, "fragwall.toml"), []byte(version), 0o600),
			os.Symlink(version, filepath.Join(dir, "..data_tmp")),
			os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	publish("..2026_1")
	ok(t, os.Symlink("..data/fragwall.toml", path))
	expect := watched(t, path)
	for _, version := range []string{"..2026_2", "..2026_3"} {
		publish(version)
		expect("version " + version)
		if text, err := os.ReadFile(path); err != nil || string(text) != version {
			t.Errorf("read %q: %v", text, err)
		}
	}
}

// TestWatchLink writes to the target of a link in another directory.
func TestWatchLink(t *testing.T) {
	target := filepath.Join(t.TempDir(), "rules.toml")
	path := filepath.Join(t.TempDir(), "fragwall.toml")
	ok(t, os.WriteFile(target, []byte("one"), 0o600), os.Symlink(target, path))
	expect := watched(t, path)
	ok(t, os.WriteFile(target, []byte("two"), 0o600))
	expect("a write to the link's target")
}

// TestWatchSet writes to the file of a set in another directory, which the configuration names
// only after its first change.
func TestWatchSet(t *testing.T) {
	path, set := filepath.Join(t.TempDir(), "fragwall.toml"), filepath.Join(t.TempDir(), "set.txt")
	ok(t, os.WriteFile(path, []byte("one"), 0o600), os.WriteFile(set, []byte("one"), 0o600))
	files := []string{path}
	w, err := newWatcher(func() []string { return files })
	ok(t, err, w.follow())
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	ok(t, os.WriteFile(path, []byte("names a set"), 0o600))
	loads := 0
	w.run(ctx, slog.New(slog.DiscardHandler), func() bool {
		switch loads++; loads {
		case 1:
			files = append(files, set)
			w.known = w.state()
			go func() {
				for ctx.Err() == nil { // until the watch on it exists
					_ = os.WriteFile(set, []byte(time.Now().String()), 0o600)
					time.Sleep(settleDelay)
				}
			}()
		case 2:
			stop()
		}
		return true
	})
	if loads != 2 {
		t.Errorf("%d loads", loads)
	}
}

// TestWatchBesideNoise writes to a file next to the configuration all the time.
func TestWatchBesideNoise(t *testing.T) {
	dir := t.TempDir()
	path, beside := filepath.Join(dir, "fragwall.toml"), filepath.Join(dir, "log")
	ok(t, os.WriteFile(path, []byte("one"), 0o600), os.WriteFile(beside, nil, 0o600))
	w := &watcher{files: only(path)}
	before := w.state()
	ok(t, os.WriteFile(beside, []byte("line"), 0o600))
	if after := w.state(); after != before {
		t.Errorf("a file next to it changes the state from\n%sto\n%s", before, after)
	}
	ok(t, os.WriteFile(path, []byte("three"), 0o600))
	if w.state() == before {
		t.Error("a write does not change the state")
	}

	expect := watched(t, path)
	quiet, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-quiet:
				return
			case <-time.After(settleDelay / 10):
				_ = os.WriteFile(beside, []byte("line"), 0o600)
			}
		}
	}()
	ok(t, os.WriteFile(path, []byte("four"), 0o600))
	expect("a write beside a busy file")
	close(quiet)
	<-ended
}

// TestWatchBroken creates a file that the configuration needed when its load failed, under a
// name that the watcher does not know.
func TestWatchBroken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fragwall.toml")
	ok(t, os.WriteFile(path, []byte("one"), 0o600))
	w, err := newWatcher(only(path))
	ok(t, err)
	ok(t, w.follow())
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	loads := 0
	ok(t, os.WriteFile(path, []byte("names another"), 0o600))
	w.run(ctx, slog.New(slog.DiscardHandler), func() bool {
		switch loads++; loads {
		case 1:
			ok(t, os.WriteFile(filepath.Join(dir, "another"), nil, 0o600))
		case 2:
			stop()
		}
		return false
	})
	if loads != 2 {
		t.Errorf("%d loads", loads)
	}
}

func TestWatchMissing(t *testing.T) {
	w, err := newWatcher(only(filepath.Join(t.TempDir(), "no", "fragwall.toml")))
	ok(t, err)
	defer w.watcher.Close()
	if err := w.follow(); err == nil {
		t.Error("a missing directory was watched")
	}
}
