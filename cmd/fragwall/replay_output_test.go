package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// precious are the files that a replay reads, and the token file that its configuration names.
var precious = []string{"in.pcap", "policy.toml", "set.txt", "token"}

// inPrecious changes to a temporary directory with the files of precious, which have several
// names each. unchanged checks that nothing was written to them.
func inPrecious(t *testing.T) (unchanged func()) {
	t.Helper()
	inDir(t)
	writeFile(t, "set.txt", "10.0.0.0/8\n")
	writeFile(t, "token", "0123456789abcdef\n")
	writeFile(t, "policy.toml", strings.Replace(replayPolicy, "[[rule]]", "[status]\ntoken_file = \"token\"\n[sets]\ns = { file = \"set.txt\" }\n[[rule]]", 1))
	if err := os.Mkdir("dir", 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"dangling": "dir/new", "also": "dir"} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	before := map[string][]byte{}
	for _, name := range precious {
		if err := os.Symlink(name, "link-"+name); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(name, "hard-"+name); err != nil {
			t.Fatal(err)
		}
		before[name], _ = os.ReadFile(name)
	}
	return func() {
		t.Helper()
		for name, want := range before {
			if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s was written to: %v", name, err)
			}
		}
	}
}

// TestReplayKeepsWhatItReads checks that a replay refuses an output that is one of the files
// that it reads, under any name.
func TestReplayKeepsWhatItReads(t *testing.T) {
	what := map[string]string{"in.pcap": "the input", "policy.toml": "the configuration", "set.txt": "the file of a set", "token": "the token file"}
	for _, name := range precious {
		for _, by := range []string{"%s", "./dir/../%s", "link-%s", "hard-%s", "/proc/self/cwd/%s", "descriptor", "bind"} {
			for _, flag := range []string{"-o out --dropped ", "-o "} {
				t.Run(fmt.Sprint(name, by, flag), func(t *testing.T) {
					unchanged := inPrecious(t)
					output := fmt.Sprintf(strings.Replace(by, "%s", "%[1]s", 1)+"%.0[1]s", name)
					switch by {
					case "descriptor":
						f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
						if err != nil {
							t.Fatal(err)
						}
						defer f.Close()
						output = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
					case "bind":
						output = "bound"
						writeFile(t, output, "")
						if err := unix.Mount(name, output, "", unix.MS_BIND, ""); err != nil {
							if os.Getenv("CI") != "" {
								t.Fatal(err)
							}
							t.Skip(err)
						}
						defer unix.Unmount(output, unix.MNT_DETACH)
					}
					code, _, stderr := run(strings.Fields("replay -c policy.toml --from inside " + flag + output + " in.pcap")...)
					if want := fmt.Sprintf("fragwall: output %q is %s; write to another file\n", output, what[name]); code != 2 || stderr != want {
						t.Errorf("exit code %d: %s", code, stderr)
					}
					unchanged()
					if _, err := os.Stat("out"); err == nil {
						t.Error("an output was created")
					}
				})
			}
		}
	}
}

// TestReplayKeepsRedirected redirects stdout or stderr to a file that the replay reads.
func TestReplayKeepsRedirected(t *testing.T) {
	for _, name := range precious {
		for _, flags := range []int{os.O_WRONLY | os.O_APPEND, os.O_RDWR} {
			for _, args := range []string{"-o out --json", "-o out", "-o -", "-o out --dropped -", "-o /dev/null"} {
				unchanged := inPrecious(t)
				f, err := os.OpenFile(name, flags, 0)
				if err != nil {
					t.Fatal(err)
				}
				arguments := strings.Fields("replay -c policy.toml --from inside in.pcap " + args)
				var other bytes.Buffer
				if code := execute(arguments, f, &other); code != 2 || !strings.HasPrefix(other.String(), "fragwall: stdout is the ") {
					t.Errorf("%s > %s: exit code %d: %s", args, name, code, &other)
				}
				unchanged()
				other.Reset()
				if code := execute(arguments, &other, f); code != 2 || !strings.HasPrefix(other.String(), "fragwall: stderr is the ") {
					t.Errorf("%s 2> %s: exit code %d: %s", args, name, code, &other)
				}
				if code := execute(arguments, f, f); code != 2 {
					t.Errorf("%s >& %s: exit code %d", args, name, code)
				}
				unchanged()
				f.Close()
			}
		}
	}
}

// TestReplayTwoOutputs names one file as two outputs, by different names.
func TestReplayTwoOutputs(t *testing.T) {
	for _, args := range []string{"-o dangling --dropped dir/new", "-o dir/new --dropped dangling", "-o dir/x --dropped also/x", "-o also/x --dropped dir/x"} {
		inPrecious(t)
		code, _, stderr := run(strings.Fields("replay -c policy.toml --from inside in.pcap " + args)...)
		if code != 2 || !strings.HasPrefix(stderr, "fragwall: -o and --dropped are both ") {
			t.Errorf("%s: exit code %d: %s", args, code, stderr)
		}
		if left, _ := filepath.Glob("dir/*"); len(left) > 0 {
			t.Errorf("%s: %q was created", args, left)
		}
	}
	inPrecious(t)
	writeFile(t, "old", "old")
	if code, _, _ := run(strings.Fields("replay -c policy.toml --from inside in.pcap -o old --dropped ./old")...); code != 2 {
		t.Errorf("exit code %d", code)
	}
	if old, err := os.ReadFile("old"); err != nil || string(old) != "old" {
		t.Errorf("an output was truncated: %q, %v", old, err)
	}
}

// TestReplayToStdoutByName writes to a file that stdout is redirected to.
func TestReplayToStdoutByName(t *testing.T) {
	for args, want := range map[string]int{"-o to": 0, "-o out --dropped to": 0, "-o to --json": 2, "-o to --dropped -": 2, "-o - --dropped to": 2} {
		inPrecious(t)
		stdout, err := os.Create("to")
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		code := execute(strings.Fields("replay -c policy.toml --from inside in.pcap "+args), stdout, &stderr)
		stdout.Close()
		if code != want {
			t.Errorf("%s > to: exit code %d: %s", args, code, &stderr)
		}
		if code != 0 {
			continue
		}
		file, err := os.Open("to")
		if err != nil {
			t.Fatal(err)
		}
		if left, _ := readFrames(t, file); len(left) != 1 || !strings.HasPrefix(stderr.String(), "in.pcap: 2 frames") {
			t.Errorf("%s > to: %d frames, %s", args, len(left), &stderr)
		}
		file.Close()
	}
}

// TestReplayKeepsMessagesApart checks that an output cannot be the file that messages go to.
func TestReplayKeepsMessagesApart(t *testing.T) {
	for _, args := range []string{"-o out", "-o out --json", "-o other --dropped out"} {
		inPrecious(t)
		f := createFile(t, "out")
		code := execute(strings.Fields("replay -c policy.toml --from inside in.pcap "+args), &bytes.Buffer{}, f)
		if got, err := os.ReadFile("out"); code != 2 || err != nil || !strings.HasPrefix(string(got), "fragwall: output \"out\" is also stderr") {
			t.Errorf("%s 2> out: exit code %d: %q, %v", args, code, got, err)
		}
	}
	for _, args := range []string{"-o -", "-o out", "-o other --dropped -"} {
		inPrecious(t)
		f := createFile(t, "out")
		if code := execute(strings.Fields("replay -c policy.toml --from inside in.pcap "+args), f, f); code != 2 {
			t.Errorf("%s > out 2>&1: exit code %d", args, code)
		}
	}
}

// createFile creates a file that is closed at the end of the test.
func createFile(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
