package terminal

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// Is reports whether w is a terminal.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Size returns the size of the terminal, or zero if it is not known.
func Size(w io.Writer) unix.Winsize {
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			return *size
		}
	}
	return unix.Winsize{}
}

// Fit cuts a text to the size of a terminal, so that it does not scroll, and appends the number
// of omitted lines. It cuts nothing if the size is not known.
func Fit(text string, size unix.Winsize) string {
	rows, columns := int(size.Row), int(size.Col)
	if rows < 2 || columns == 0 {
		return text
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if most := rows - 1; len(lines) > most {
		lines = append(lines[:most-1], "… "+Count(len(lines)-most+1, "more line"))
	}
	for i, line := range lines {
		if runes := []rune(line); len(runes) > columns {
			lines[i] = string(runes[:columns])
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// Count returns a number with its noun, such as "1 frame" or "2 frames".
func Count[N int | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Printable returns a text from an untrusted source in a form that is safe to print: unchanged
// if all characters are printable, otherwise quoted.
func Printable(s string) string {
	if q := strconv.QuoteToGraphic(s); q != `"`+s+`"` {
		return q
	}
	return s
}

// PrintableLines returns a text with all characters escaped that are not printable, except for
// newlines. This includes terminal control sequences.
func PrintableLines(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\n' || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}
