// Manpage writes fragwall's manual page from what the program says of itself:
// the help of each of its commands. The binary is the argument.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: manpage BINARY >fragwall.8")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "manpage:", err)
		os.Exit(1)
	}
}

func write(binary string) error {
	help, err := helpOf(binary)
	if err != nil {
		return err
	}
	about, rest, _ := strings.Cut(help, "\n\nUsage:")
	w := bufio.NewWriter(os.Stdout)
	fmt.Fprintf(w, ".TH FRAGWALL 8\n.SH NAME\nfragwall \\- judge whole datagrams on the wire\n")
	fmt.Fprintf(w, ".SH SYNOPSIS\n.B fragwall\n.I command\n[\\fIoptions\\fR]\n.SH DESCRIPTION\n%s\n.SH COMMANDS\n", escape(about))
	for _, command := range commands(rest) {
		help, err := helpOf(binary, command)
		if err != nil {
			return err
		}
		about, usage, _ := strings.Cut(help, "\n\nUsage:")
		fmt.Fprintf(w, ".SS %s\n%s\n.PP\n.nf\n%s\n.fi\n", command, escape(about), escape(strings.TrimLeft(usage, "\n")))
	}
	fmt.Fprint(w, `.SH EXIT STATUS
0 when it did what it was asked, 1 when it failed while running, 2 for wrong
usage or a wrong configuration.
.SH FILES
.TP
.I /etc/fragwall/fragwall.toml
The configuration of the service.
.TP
.I /run/fragwall
What sidecars keep of their NICs while they run.
`)
	return w.Flush()
}

// helpOf runs a command of the program with --help.
func helpOf(binary string, command ...string) (string, error) {
	out, err := exec.Command(binary, append(command, "--help")...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s --help: %w", binary, strings.Join(command, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// commands reads the list of commands in the help of the whole.
func commands(help string) (names []string) {
	_, list, _ := strings.Cut(help, "Available Commands:\n")
	for line := range strings.Lines(list) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" {
			break
		}
		if name != "help" && name != "completion" {
			names = append(names, name)
		}
	}
	return names
}

// escape keeps roff from taking text for requests.
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
