package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// watched starts to watch a file, and returns how to wait for a change to be
// told of.
func watched(t *testing.T, path string) (expect func(what string)) {
	t.Helper()
	w, err := newWatcher(path)
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
		w.run(ctx, slog.New(slog.DiscardHandler), func() {
			select {
			case told <- struct{}{}:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() { stop(); <-ended })
	return func(what string) {
		t.Helper()
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing tells of %s", what)
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

// TestWatchConfigMap changes a file as Kubernetes does: its name is a link into
// ..data, a link to a directory with a time in its name.
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
	ok(t, os.RemoveAll(filepath.Join(dir, "..2026_1")))
	expect("the end of an old version")
}

// TestWatchLink writes to a file that a link elsewhere leads to.
func TestWatchLink(t *testing.T) {
	target := filepath.Join(t.TempDir(), "rules.toml")
	path := filepath.Join(t.TempDir(), "fragwall.toml")
	ok(t, os.WriteFile(target, []byte("one"), 0o600), os.Symlink(target, path))
	expect := watched(t, path)
	ok(t, os.WriteFile(target, []byte("two"), 0o600))
	expect("a write to the link's target")
}

func TestWatchNothing(t *testing.T) {
	w, err := newWatcher(filepath.Join(t.TempDir(), "no", "fragwall.toml"))
	ok(t, err)
	defer w.watcher.Close()
	if err := w.follow(); err == nil {
		t.Error("a directory that is not there can be watched")
	}
}
