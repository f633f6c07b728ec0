package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// writeConfig writes fragwall.toml(5): the reference, table by table, and the
// examples.
func writeConfig(w io.Writer, reference string, examples []string) error {
	text, err := os.ReadFile(reference)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, ".TH FRAGWALL.TOML 5")
	write(w,
		section{"NAME", `fragwall.toml \- configuration of fragwall`},
		section{"SYNOPSIS", ".I /etc/fragwall/fragwall.toml"},
		section{"DESCRIPTION", `
The configuration of
.BR fragwall (8)
is a file in TOML: the two sides of the wire, what happens to fragments, sets of
addresses, and rules, of which the first that matches decides. Every key has a
default that works, apart from the TAPs of the two sides and the name and action
of a rule. A key that is not here, or a value of a wrong type, is a mistake;
.B fragwall check
tells the first 20 mistakes of a file, each with its line.`},
		section{"KEYS", "Every key, with its default, or an example where there is none."},
	)
	for _, part := range tables(string(text)) {
		fmt.Fprintf(w, ".SS %s\n%s", escape(part.title), verbatim(part.text))
	}
	write(w, section{"EXAMPLES", ""})
	for _, file := range examples {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		fmt.Fprintf(w, ".SS %s\n%s", escape(title), verbatim(string(text)))
	}
	write(w,
		section{"FILES", ".TP\n.I /etc/fragwall/fragwall.toml\nThe configuration of the service.\n.TP\n.I /usr/share/doc/fragwall/examples\nThe examples above."},
		section{"SEE ALSO", ".BR fragwall (8)"},
	)
	return nil
}

// tables parts the reference before the comments of each table's header; of
// several rules, the first begins the part of all.
func tables(reference string) []section {
	var parts []section
	part := section{title: "Top level"}
	var comments strings.Builder // that may belong to the next header
	for line := range strings.Lines(reference) {
		title, _, _ := strings.Cut(line, " ")
		switch title = strings.TrimSpace(title); {
		case strings.HasPrefix(line, "#"):
			comments.WriteString(line)
			continue
		case strings.HasPrefix(title, "[") && title != part.title:
			parts = append(parts, part)
			part = section{title: title}
		}
		part.text += comments.String() + line
		comments.Reset()
	}
	return append(parts, part)
}
