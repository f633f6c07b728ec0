package rules_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/rules"
)

// TestReadWithin reads regular files, directly and through links, and refuses all others.
func TestReadWithin(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(in("file"), []byte("text"), 0o600))
	must(os.WriteFile(in("empty"), nil, 0o600))
	must(os.Mkdir(in("..2026"), 0o700)) // a name that Kubernetes uses to mount a ConfigMap
	must(os.WriteFile(in("..2026/mounted"), []byte("text"), 0o600))
	must(os.Symlink("..2026", in("..data")))
	must(os.Symlink("..data/mounted", in("mounted")))
	must(unix.Mkfifo(in("pipe"), 0o600))
	must(os.Symlink("loop", in("loop")))
	must(os.Symlink(in("pipe"), in("link to a pipe")))
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(err)
	defer unix.Close(socket)
	must(unix.Bind(socket, &unix.SockaddrUnix{Name: in("socket")}))
	for name, want := range map[string]string{
		in("file"): "text", in("mounted"): "text", in("empty"): "",
		in("none"): "no such file or directory", in("loop"): "too many levels of symbolic links",
		in("pipe"): "is a pipe; want a regular file", in("link to a pipe"): "is a pipe; want a regular file",
		in("socket"): "is a socket; want a regular file", dir: "is a directory; want a regular file",
		"/dev/zero": "is a device; want a regular file", "/dev/full": "is a device; want a regular file",
		"/proc/self/pagemap": "is a file that the kernel generates; want a regular file",
		"/proc/self/mem":     "is a file that the kernel generates; want a regular file",
	} {
		text, err := rules.ReadWithin(name, 4, time.Minute)
		if err != nil {
			text = err.Error()
			if !strings.HasPrefix(text, fmt.Sprintf("%q", name)) {
				t.Errorf("%s does not name %s", text, name)
			}
		}
		if !strings.HasSuffix(text, want) {
			t.Errorf("%s: %q, want %q", name, text, want)
		}
	}
	if _, err := rules.ReadWithin(in("file"), 3, time.Minute); err == nil || err.Error() != fmt.Sprintf("%q has more than 3 bytes; want at most that many", in("file")) {
		t.Errorf("%v", err)
	}
	if _, err := rules.ReadWithin(in("file"), 4, -time.Second); err == nil || !strings.HasSuffix(err.Error(), "could not be read within -1s") {
		t.Errorf("%v", err)
	}
}

// TestSetFiles checks the bounds on the files of all sets, and on their addresses.
func TestSetFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large"), []byte(strings.Repeat("::\n", rules.MaxAddresses/2)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "small"), []byte("10.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer sparse.Close()
	if err := sparse.Truncate(rules.MaxSetBytes + 1); err != nil {
		t.Fatal(err)
	}
	set := func(name, file string) string { return fmt.Sprintf("%s = { file = %q }\n", name, file) }
	many := func(n int) string { return repeated(n, func(i int) string { return set(fmt.Sprint("s", i), "small") }) }
	for name, tt := range map[string]struct{ sets, mistake string }{
		"two large ones": {set("a", "large") + set("b", "large"), ""},
		"an address more": {set("a", "large") + set("b", "large") + set("c", "small"),
			dir + "/small:1: more than 2097152 addresses in all sets and rules; want at most that many: use one set in several rules, and prefixes instead of addresses"},
		"a file too large": {set("a", "sparse"), dir + "/x.toml:6: sets.a.file: \"" + dir + "/sparse\" has more than 134217728 bytes; want at most that many"},
		"files too large": {set("a", "small") + set("b", "sparse"), dir + "/x.toml:7: sets.b.file: \"" + dir +
			"/sparse\" has more than 134217719 bytes; want at most that many, because the files of all sets have at most 134217728 together"},
		"many files":     {many(rules.MaxSetFiles), ""},
		"too many files": {many(rules.MaxSetFiles + 1), dir + "/x.toml:1005: sets.s999.file: \"" + dir + "/small\": more than 1024 sets with files; want at most that many"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rules.Parse(filepath.Join(dir, "x.toml"), []byte(minimal+"[sets]\n"+tt.sets))
			if got := fmt.Sprint(err); tt.mistake != "" && got != tt.mistake || tt.mistake == "" && err != nil {
				t.Errorf("got  %.400s\nwant %s", got, tt.mistake)
			}
		})
	}
}

// repeated joins n texts.
func repeated(n int, text func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(text(i))
	}
	return b.String()
}
