package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Is reports whether what is written to w is shown on a terminal.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Size returns the size of the terminal, zero where it is not known.
func Size(w io.Writer) unix.Winsize {
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			return *size
		}
	}
	return unix.Winsize{}
}

// Fit cuts a text to the size of a terminal, which would scroll otherwise, and
// says how many lines are left out. A size that is not known cuts nothing.
func Fit(text string, size unix.Winsize) string {
	rows, columns := int(size.Row), int(size.Col)
	if rows < 2 || columns == 0 {
		return text
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if most := rows - 1; len(lines) > most {
		lines = append(lines[:most-1], fmt.Sprintf("… %d lines more", len(lines)-most+1))
	}
	for i, line := range lines {
		if runes := []rune(line); len(runes) > columns {
			lines[i] = string(runes[:columns])
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
