package integration_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the documents that tests generate")

// conformance is every rule by which the box differs from a Linux receiver on
// purpose.
var conformance = []struct{ name, box, kernel, source string }{
	{
		ruleOverlap,
		"A fragment that covers a part of another one's range poisons the datagram: nothing of it passes until its deadline.",
		"Gives up what it has, and begins anew with the next fragment. A fragment within what is there already counts as a duplicate.",
		"RFC 5722 §4, RFC 8200 §4.5; IPv4 alike",
	}, {
		ruleConflict,
		"`reassemble`: the same range with other bytes poisons the datagram. `validate`: the fragment that came first passes, and no other of its range.",
		"Keeps the bytes that came first; it never compares.",
		"RFC 5722 §4; RFC 1858 §4 shows the attack",
	}, {
		ruleEnd,
		"Two fragments that disagree on where the datagram ends poison it.",
		"Gives up what it has, and begins anew with the next fragment.",
		"RFC 5722 §4 in spirit: one of the two was not sent by the datagram's source",
	}, {
		ruleBeyond,
		"Data beyond the end that the last fragment set poisons the datagram.",
		"Gives up what it has, and begins anew with the next fragment.",
		"as above",
	}, {
		ruleEmpty,
		"A fragment without payload is dropped alone.",
		"Gives up the datagram that it claims to belong to.",
		"RFC 8200 §4.5 knows none; dropping it alone keeps a stranger from killing a datagram",
	}, {
		ruleUnaligned,
		"A fragment that is not the last and whose length is no multiple of 8 is dropped alone.",
		"IPv4: cuts the rest off and goes on. IPv6: drops it alone, and reports it to the source.",
		"RFC 791 §3.2, RFC 8200 §4.5",
	}, {
		ruleTooLong,
		"A fragment that reaches beyond 65,535 bytes, headers counted, is dropped alone where it says so itself, and poisons the datagram where only the first fragment's headers show it.",
		"IPv4: notices when it puts the datagram together, and gives it up. IPv6: drops it alone, and reports it to the source.",
		"RFC 791 §3.1, RFC 8200 §4.5",
	}, {
		ruleTruncated,
		"A datagram that ends before the ports that a rule asks for is dropped.",
		"Leaves that to the transport protocol.",
		"RFC 1858 §3: a rule must not be passed by because it could not be read",
	}, {
		ruleTiny,
		"`validate`: a first fragment without the whole transport header poisons the datagram. `reassemble` needs no such rule.",
		"Puts the datagram together.",
		"RFC 1858 §3, RFC 3128",
	}, {
		ruleDenied,
		"A datagram that the policy drops does not arrive.",
		"Has no such policy here.",
		"what the box is for",
	},
}

// TestConformanceDocument compares docs/conformance.md with the rules.
func TestConformanceDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Where fragwall differs from Linux

` + "`make integration`" + ` sends random sequences of fragments, of both families, to a
Linux host and to another one behind the box, and compares what their sockets
get: valid datagrams, cut at random, shuffled, duplicated, and mutated in every
way that the test could be taught. Behind the box must arrive exactly what the
design promises, in ` + "`reassemble`, with either `emit`, and in `validate`" + `; and where
a host without the box gets something else, one of these rules has to say why.
So what the host puts together is what the policy judged.

More sequences, or others:

` + "```sh\ngo test -v -run TestKernelAgrees ./integration -sequences 1000000 -seed 7 -timeout 2h\n```" + `

| rule | fragwall | Linux | why |
|---|---|---|---|
`)
	for _, r := range conformance {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.name, r.box, r.kernel, r.source)
	}
	b.WriteString(`
What Linux drops as well is not in the table: a wrong IPv4 header checksum, an
IPv6 first fragment without its whole header chain (RFC 7112), identical
duplicates, and ECN that contradicts itself (RFC 3168 §5.3), which the box
leaves to the receiver unless it builds the datagram anew.
`)
	compareDocument(t, "../docs/conformance.md", b.String())
}

// compareDocument fails unless a document that a test generates is as the test
// has it; with -update, it writes it.
func compareDocument(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		must(t, os.WriteFile(path, []byte(want), 0o644))
	}
	got, err := os.ReadFile(path)
	must(t, err)
	if string(got) != want {
		t.Errorf("%s is stale: run the test with -update", path)
	}
}
