package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// writeConfig writes fragwall.toml(5): the reference configuration, table by table, and the
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
is a file in TOML. It has the two sides of the wire, the handling of fragments, sets
of addresses, and rules. The first rule that matches decides. Every key has a default,
except the TAPs of the two sides, and the name and action of a rule. An unknown key or
a value of the wrong type is a mistake.
.B fragwall check
prints the first 20 mistakes of a file, each with its line.`},
		section{"KEYS", "Every key, with its default, or with an example if it has no default."},
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

// tables splits the reference configuration into its tables. Comments directly before a table's
// header belong to the table. Consecutive tables with the same header, such as rules, are one part.
func tables(reference string) []section {
	var parts []section
	part := section{title: "Top level"}
	var comments strings.Builder // may belong to the next header
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
