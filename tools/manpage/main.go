// Manpage writes fragwall's manual pages: fragwall(8) from the help texts of the program and its
// commands, and fragwall.toml(5) from the reference configuration and the examples.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	w := bufio.NewWriter(os.Stdout)
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 1:
		err = writeProgram(w, args[0])
	case len(args) > 1 && args[0] == "-config":
		err = writeConfig(w, args[1], args[2:])
	default:
		fmt.Fprintln(os.Stderr, "usage: manpage BINARY >fragwall.8\n       manpage -config REFERENCE [EXAMPLE...] >fragwall.toml.5")
		os.Exit(2)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "manpage:", err)
		os.Exit(1)
	}
}

// section is a titled part of a page. The text is roff, except in the result of tables.
type section struct{ title, text string }

// write writes sections with their headings.
func write(w io.Writer, sections ...section) {
	for _, s := range sections {
		fmt.Fprintf(w, ".SH %s\n", s.title)
		if s.text != "" {
			fmt.Fprintln(w, strings.TrimSpace(s.text))
		}
	}
}

// verbatim returns roff that shows text with its line breaks.
func verbatim(text string) string {
	return fmt.Sprintf(".PP\n.nf\n%s\n.fi\n", escape(strings.Trim(text, "\n")))
}

// escape escapes text, so that roff does not interpret it as requests.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
