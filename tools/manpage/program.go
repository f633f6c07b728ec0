package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// writeProgram writes fragwall(8), from the help texts of a binary.
func writeProgram(w io.Writer, binary string) error {
	help, err := helpOf(binary)
	if err != nil {
		return err
	}
	about, rest, _ := strings.Cut(help, "\n\nUsage:")
	fmt.Fprintln(w, ".TH FRAGWALL 8")
	write(w,
		section{"NAME", `fragwall \- judge whole datagrams on the wire`},
		section{"SYNOPSIS", ".B fragwall\n.I command\n[\\fIoptions\\fR]"},
		section{"DESCRIPTION", escape(about)},
		section{"COMMANDS", ""},
	)
	for _, command := range commands(rest) {
		help, err := helpOf(binary, command)
		if err != nil {
			return err
		}
		about, usage, _ := strings.Cut(help, "\n\nUsage:")
		fmt.Fprintf(w, ".SS %s\n%s\n%s", command, escape(about), verbatim(usage))
	}
	write(w, section{"EXIT STATUS", `
0: success. 1: an error while running, or an expectation that is not met. 2: wrong
usage, or a wrong configuration.`},
		section{"FILES", `
.TP
.I /etc/fragwall/fragwall.toml
The configuration of the service; see
.BR fragwall.toml (5).
.TP
.I /run/fragwall
Control sockets of running instances, and the state of sidecars' NICs.`},
		section{"EXAMPLES", examples},
		section{"SEE ALSO", ".BR fragwall.toml (5),\n.BR nft (8),\n.BR conntrack (8),\n.BR tcpdump (8)"},
	)
	return nil
}

// examples are the most common uses, as roff.
var examples = example("Check a configuration:", "fragwall check -c /etc/fragwall/fragwall.toml") +
	example("Ask which rule decides on a DNS query:",
		"fragwall explain -c /etc/fragwall/fragwall.toml --from inside --proto udp \\\n    --src 10.0.0.7 --dst 10.0.0.2 --dport 53") +
	example("Forward between the two sides, and reload the rules when the file changes:", "fragwall run -c /etc/fragwall/fragwall.toml --watch-config") +
	example("Reload the rules of the running instance, and watch its counters:", "fragwall reload\nfragwall status --watch --interval 5s") +
	example("Try the rules on a capture:",
		"fragwall replay -c /etc/fragwall/fragwall.toml --from outside \\\n    -o passed.pcap --dropped dropped.pcapng in.pcap")

// example returns the description of an example and its commands, as roff.
func example(about, command string) string { return ".PP\n" + about + "\n" + verbatim(command) }

// helpOf returns the output of the binary, or of one of its commands, with --help.
func helpOf(binary string, command ...string) (string, error) {
	out, err := exec.Command(binary, append(command, "--help")...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s --help: %w", binary, strings.Join(command, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// commands returns the names of the commands that the binary's help lists.
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
