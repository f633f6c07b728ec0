package replay

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

// sized is the fs.FileInfo of a regular file with a size.
type sized struct {
	fs.FileInfo
	bytes int64
}

func (s sized) Size() int64       { return s.bytes }
func (s sized) Mode() fs.FileMode { return 0 }

func TestProgress(t *testing.T) {
	now := began
	show := func(in *inputFile) (*progress, *bytes.Buffer) {
		var w bytes.Buffer
		p := &progress{in: in, now: func() time.Time { return now }}
		p.start(&w)
		return p, &w
	}
	in := &inputFile{info: sized{bytes: 1000}}
	p, w := show(in)
	step := func(after time.Duration, frames int, read int64, want string) {
		t.Helper()
		w.Reset()
		now, in.read = now.Add(after), read
		p.update(frames)
		if w.String() != want {
			t.Errorf("%q, want %q", w.String(), want)
		}
	}
	step(999*time.Millisecond, 10, 100, "") // too early
	step(time.Millisecond, 2000, 250, clearLine+"[#######                       ]  25 %, 2000 frames, 2000 a second, 3s left")
	step(progressPause-1, 2100, 260, "")
	step(time.Second, 8000, 1000, clearLine+"[##############################] 100 %, 8000 frames, 3636 a second, 0s left")
	w.Reset()
	if p.end(); w.String() != clearLine {
		t.Errorf("%q", w.String())
	}

	p, w = show(&inputFile{}) // a pipe
	now = now.Add(2 * time.Second)
	if p.update(3000); w.String() != clearLine+"3000 frames, 1500 a second" {
		t.Errorf("%q", w.String())
	}
	p, w = show(in)
	if p.end(); w.String() != "" {
		t.Errorf("nothing was shown, but end wrote %q", w.String())
	}
}

// TestProgressIsForTerminals checks that progress is shown only if stderr is a terminal and
// verdicts do not go to a terminal.
func TestProgressIsForTerminals(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	for _, c := range []struct {
		stderr, stdout io.Writer
		taken, want    bool
	}{
		{file, terminal, false, false},
		{&strings.Builder{}, terminal, false, false},
		{terminal, file, true, true},
		{terminal, terminal, false, true},
		{terminal, terminal, true, false},
	} {
		p := newProgress(c.stderr, &files{in: &inputFile{}, stdout: c.stdout, stdoutTaken: c.taken})
		if got := p.w != nil; got != c.want {
			t.Errorf("stderr %T, stdout %T, taken %v: shown %v", c.stderr, c.stdout, c.taken, got)
		}
	}
}
