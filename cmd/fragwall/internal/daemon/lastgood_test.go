package daemon

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/rules"
)

// startIn loads "x.toml" with a directory for the last good configuration.
func startIn(t *testing.T, dir string) (s *Startup, stderr string, err error) {
	t.Helper()
	var said strings.Builder
	s, err = Load(&said, "x.toml", dir)
	return s, said.String(), err
}

// TestLastGood breaks each file of a configuration that ran.
func TestLastGood(t *testing.T) {
	const with = reloadable + "[status]\ntoken_file = \"token\"\n"
	for name, tt := range map[string]struct{ file, text, mistake string }{
		"mistakes":     {"x.toml", "nonsense\nx = ", "x.toml:1: "},
		"no file":      {"x.toml", "", `read configuration: "x.toml": no such file`},
		"a set's file": {"allowed.txt", "10.0.0.1/8\n", "allowed.txt:1: "},
		"no set":       {"allowed.txt", "", `x.toml:6: sets.allowed.file: "allowed.txt": no such file`},
		"no token":     {"token", "", "x.toml: status.token_file: "},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, log := newReloader(t)
			write(t, "x.toml", with)
			write(t, "token", "0123456789abcdef\n")
			dir := filepath.Join(t.TempDir(), "kept")
			first, stderr, err := startIn(t, dir)
			if err != nil || first.broken != nil {
				t.Fatalf("%v, %q", err, stderr)
			}
			if first.keeper.kept() != nil {
				t.Error("a copy was saved before the configuration ran")
			}
			r.config, r.texts, r.keeper = first.config, first.texts, first.keeper
			r.keepFirst()
			write(t, "allowed.txt", "10.0.0.2\n")
			if o := r.reload(); o.Code != 0 { // afterwards, the file of the token is not read again
				t.Fatal(o)
			}
			if log.Len() == 0 || strings.Contains(log.String(), "ERROR") || r.policy().Kept == nil {
				t.Errorf("%s, %+v", log, r.policy())
			}

			if tt.text == "" {
				if err := os.Remove(tt.file); err != nil {
					t.Fatal(err)
				}
			} else {
				write(t, tt.file, tt.text)
			}
			kept, stderr, err := startIn(t, dir)
			if err != nil || stderr != "" {
				t.Fatalf("%v, %q", err, stderr)
			}
			if got := kept.broken; got == nil || !strings.Contains(got.Error(), tt.mistake) {
				t.Errorf("%v, want %s", got, tt.mistake)
			}
			if kept.token != "0123456789abcdef" || !kept.config.Policy.Rules[0].SameAs(&r.config.Policy.Rules[0]) || len(r.config.Fixed(kept.config)) > 0 {
				t.Errorf("%+v differs from what ran", kept)
			}

			log.Reset()
			kept.warn(slog.New(slog.NewTextHandler(log, nil)))
			if !strings.Contains(log.String(), `level=ERROR msg="started with the last good configuration, because the configuration file is broken" file=x.toml`) {
				t.Error(log)
			}
			if _, stderr, err := startIn(t, filepath.Join(t.TempDir(), "other")); err == nil || !strings.Contains(stderr+err.Error(), "no last good configuration to start with") {
				t.Errorf("without a copy: %v, %q", err, stderr)
			}
		})
	}
}

// TestLastGoodIsReplaced checks that a reload of the corrected file replaces the saved
// configuration.
func TestLastGoodIsReplaced(t *testing.T) {
	r, _, _ := newReloader(t)
	dir := filepath.Join(t.TempDir(), "kept")
	first, _, err := startIn(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	first.keeper.save(first.texts, slog.New(slog.DiscardHandler))
	write(t, "x.toml", "nonsense")
	s, _, err := startIn(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	r.config, r.texts, r.keeper, r.lastGood, r.mistake = s.config, s.texts, s.keeper, true, firstLine(s.broken)
	before := *s.keeper.kept()
	r.keepFirst()
	if p := r.policy(); !p.LastGood || !p.Kept.Equal(before) || !strings.HasPrefix(p.Mistake, "x.toml:1: ") {
		t.Errorf("%+v", p)
	}
	if o := r.reload(); o.Code != exit.Usage || !r.policy().LastGood {
		t.Errorf("%+v, %+v", o, r.policy())
	}
	write(t, "x.toml", reloadable)
	if o := r.reload(); o.Code != 0 {
		t.Fatal(o)
	}
	p := r.policy()
	if text, err := json.Marshal(p); err != nil || p.LastGood || p.Mistake != "" || !p.Kept.After(before) || !strings.Contains(string(text), `"last_good":false,"kept":"`) {
		t.Errorf("%s, %v", text, err)
	}
}

// TestUnusableDirectory checks that a directory that cannot be used does not prevent the start.
func TestUnusableDirectory(t *testing.T) {
	r, _, log := newReloader(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s, stderr, err := startIn(t, dir)
	if err != nil || stderr != "" {
		t.Fatalf("%v, %q", err, stderr)
	}
	r.texts, r.keeper = s.texts, s.keeper
	r.keepFirst()
	if said := log.String(); !strings.Contains(said, "level=ERROR") || !strings.Contains(said, "cannot keep a copy") || !strings.Contains(said, "other users can write to it") {
		t.Error(said)
	}
	if p := r.policy(); p.Kept != nil {
		t.Errorf("%+v", p)
	}
	if o := r.reload(); o.Code != 0 {
		t.Error(o)
	}
	write(t, "x.toml", "nonsense")
	if _, stderr, err := startIn(t, dir); err == nil || !strings.Contains(stderr, "x.toml:1: ") || !strings.Contains(stderr, "other users can write to it") {
		t.Errorf("%v, %q", err, stderr)
	}
	var none *keeper
	if _, texts, err := none.load("x.toml"); texts != nil || err == nil || none.kept() != nil {
		t.Errorf("%v, %v", texts, err)
	}
	if _, err := rules.Load("x.toml"); err == nil {
		t.Error("the file is valid")
	}
}
