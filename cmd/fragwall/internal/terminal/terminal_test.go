package terminal

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestFit checks texts that are larger and smaller than the terminal.
func TestFit(t *testing.T) {
	const text = "one\ntwo €\nthree\nfour\n"
	for _, c := range []struct {
		rows, columns uint16
		want          string
	}{
		{0, 0, text},
		{5, 80, text},
		{4, 80, "one\ntwo €\n… 2 more lines\n"},
		{24, 5, "one\ntwo €\nthree\nfour\n"},
		{24, 4, "one\ntwo \nthre\nfour\n"},
	} {
		if got := Fit(text, unix.Winsize{Row: c.rows, Col: c.columns}); got != c.want {
			t.Errorf("%d by %d: %q, want %q", c.rows, c.columns, got, c.want)
		}
	}
}

// TestCount checks the plural of the noun.
func TestCount(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 frames", 1: "1 frame", 2: "2 frames"} {
		if got := Count(n, "frame"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
