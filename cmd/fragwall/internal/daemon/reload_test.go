package daemon

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"fragwall/cmd/fragwall/internal/control"
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

// newReloader returns a reloader of "x.toml", which it writes, the policies that the reloader
// applies, and its log.
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
		want       control.Outcome
		log        string
	}{
		{"the same", "x.toml", reloadable, control.Outcome{Text: "reloaded x.toml: " + summary + "\ngeneration 2: nothing changed"},
			"level=INFO msg=reloaded generation=2 changes=\"nothing changed\" policy=\"" + summary + "\"\n"},
		{"another set", "allowed.txt", "10.0.0.2\n", control.Outcome{Text: "reloaded x.toml: " + summary + "\ngeneration 2: rules changed: \"r\"; sets changed: \"allowed\""},
			`level=INFO msg=reloaded generation=2 changes="rules changed: \"r\"; sets changed: \"allowed\"" policy="` + summary + "\"\n"},
		{"mistakes", "x.toml", strings.ReplaceAll(reloadable, "accept", "acept") + "dst = 5\n", control.Outcome{Code: 2,
			Text: "x.toml:9: action: \"acept\" is unknown; did you mean \"accept\"?\nx.toml:11: dst: 5 is a number; want an address, a prefix or a range in a string, such as \"10.0.0.1\", \"2001:db8::/32\" or \"10.0.0.1-10.0.0.9\""},
			`level=ERROR msg="reload failed: the old rules stay in force" mistake="x.toml:9: action: \"acept\" is unknown; did you mean \"accept\"?"` + "\n" +
				`level=ERROR msg="reload failed: the old rules stay in force" mistake="x.toml:11: dst: 5 is a number; want an address, a prefix or a range in a string, such as \"10.0.0.1\", \"2001:db8::/32\" or \"10.0.0.1-10.0.0.9\""` + "\n"},
		{"a mistake in a set", "allowed.txt", "10.0.0.2/8\n", control.Outcome{Code: 2, Text: "allowed.txt:1: \"10.0.0.2/8\" has host bits set; did you mean \"10.0.0.0/8\"?"},
			`level=ERROR msg="reload failed: the old rules stay in force" mistake="allowed.txt:1: \"10.0.0.2/8\" has host bits set; did you mean \"10.0.0.0/8\"?"` + "\n"},
		{"other devices", "x.toml", strings.Replace(reloadable, `"a"`, `"c"`, 1) + "[fragments]\nmemory = \"1MiB\"\n",
			control.Outcome{Code: 2, Text: "x.toml: cannot change while fragwall runs: inside.tap, fragments.memory; restart it, or restore the old values"},
			`level=ERROR msg="reload failed: the old rules stay in force" mistake="x.toml: cannot change while fragwall runs: inside.tap, fragments.memory; restart it, or restore the old values"` + "\n"},
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

// TestReloadUnreadable checks that files that are not regular are refused, and read once they
// are corrected.
func TestReloadUnreadable(t *testing.T) {
	for _, file := range []string{"x.toml", "allowed.txt"} {
		for target, want := range map[string]string{
			"pipe": "is a pipe; want a regular file", "/dev/zero": "is a device; want a regular file",
			"/proc/self/pagemap": "is a file that the kernel generates; want a regular file",
		} {
			r, applied, log := newReloader(t)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(syscall.Mkfifo("pipe", 0o600), os.Remove(file), os.Symlink(target, file)); err != nil {
				t.Fatal(err)
			}
			for range 20 { // more often than reads may be pending
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
				t.Errorf("corrected: %+v, %d policies applied", got, len(*applied))
			}
		}
	}
}
