package lastgood

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newCopy returns a copy of a configuration that names a file, and the path of the
// configuration.
func newCopy(t *testing.T, config, text string) *Copy {
	t.Helper()
	c, err := NewCopy(config)
	must(t, err)
	read := c.Record(func(name string, _ int64, _ time.Duration) (string, error) {
		if strings.Contains(name, "missing") {
			return "", fs.ErrNotExist
		}
		return text + name, nil
	})
	for _, name := range []string{config, "/sets/blocked.txt", "/sets/missing.txt"} {
		_, _ = read(name, 100, 0)
	}
	return c
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// TestKept saves copies of two configurations, one of them twice, and loads them with another
// store.
func TestKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kept")
	s := open(t, dir)
	if _, err := s.Load("/etc/a.toml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the first save: %v", err)
	}
	for _, c := range []*Copy{newCopy(t, "/etc/a.toml", "old, and much longer "), newCopy(t, "/other/a.toml", "other "), newCopy(t, "/etc/a.toml", "new ")} {
		must(t, s.Save(c, time.Unix(1_700_000_000, 5)))
	}
	for config, text := range map[string]string{"/etc/a.toml": "new ", "/other/a.toml": "other "} {
		c, err := open(t, dir).Load(config)
		must(t, err)
		for _, name := range []string{config, "/sets/blocked.txt"} {
			if got, err := c.Read(name, 100, 0); err != nil || got != text+name {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		if _, err := c.Read("/sets/missing.txt", 100, 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing file: %v", err)
		}
		if _, err := c.Read(config, 3, 0); err == nil || !strings.Contains(err.Error(), "want at most 3") {
			t.Errorf("%v", err)
		}
		if !c.Kept.Equal(time.Unix(1_700_000_000, 0)) {
			t.Errorf("saved at %v", c.Kept)
		}
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("%v", entries)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestUntrusted checks that directories and archives that other users could have written, and
// damaged archives, are refused.
func TestUntrusted(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, dir, archive string)
		want    string
	}{
		"open directory": {func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir, 0o770)) }, "other users can write to it (mode 0770); want mode 0700"},
		"open parent":    {func(t *testing.T, dir, _ string) { must(t, os.Chmod(filepath.Dir(dir), 0o777)) }, "and replace it"},
		"open archive":   {func(t *testing.T, _, archive string) { must(t, os.Chmod(archive, 0o666)) }, "other users can write to it (mode 0666)"},
		"no directory": {func(t *testing.T, dir, _ string) {
			must(t, errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)))
		}, "not a directory"},
		"directory in its place": {func(t *testing.T, _, archive string) {
			must(t, errors.Join(os.Remove(archive), os.Mkdir(archive, 0o700)))
		}, "not a regular file"},
		"cut off": {func(t *testing.T, _, archive string) { must(t, os.Truncate(archive, 700)) }, "checksums are missing or wrong"},
		"empty":   {func(t *testing.T, _, archive string) { must(t, os.Truncate(archive, 0)) }, "checksums are missing or wrong"},
		"another text": {func(t *testing.T, _, archive string) {
			text, err := os.ReadFile(archive)
			must(t, err)
			must(t, os.WriteFile(archive, bytes.Replace(text, []byte("old /sets"), []byte("new /sets"), 1), 0o600))
		}, "checksums are missing or wrong"},
		"no archive": {func(t *testing.T, _, archive string) {
			must(t, os.WriteFile(archive, []byte(strings.Repeat("x", 2000)), 0o600))
		}, "invalid tar header"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "kept")
			must(t, open(t, dir).Save(newCopy(t, "/etc/a.toml", "old "), time.Now()))
			tt.prepare(t, dir, filepath.Join(dir, archiveName("/etc/a.toml")))
			s, err := Open(dir)
			if err == nil {
				defer s.Close()
				_, err = s.Load("/etc/a.toml")
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

// TestSaveFails checks that a failed save leaves the previous copy.
func TestSaveFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kept")
	s := open(t, dir)
	must(t, s.Save(newCopy(t, "/etc/a.toml", "old "), time.Now()))
	must(t, os.MkdirAll(filepath.Join(dir, archiveName("/etc/a.toml")+".new", "in the way"), 0o700))
	if err := s.Save(newCopy(t, "/etc/a.toml", "new "), time.Now()); err == nil {
		t.Error("saved, although a directory is in the way")
	}
	c, err := s.Load("/etc/a.toml")
	must(t, err)
	if text, _ := c.Read("/etc/a.toml", 100, 0); text != "old /etc/a.toml" {
		t.Errorf("%q", text)
	}
}
