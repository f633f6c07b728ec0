package integration_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the documents that tests generate")

// conformance lists the intended differences between the box and a Linux receiver.
var conformance = []struct{ name, box, kernel, source string }{
	{
		ruleOverlap,
		"A fragment that overlaps a part of another one discards the datagram: no fragment of it passes until its deadline.",
		"Discards what it has, and starts again with the next fragment. A fragment inside the received range counts as a duplicate.",
		"RFC 5722 §4, RFC 8200 §4.5; the box treats IPv4 in the same way",
	}, {
		ruleConflict,
		"`reassemble`: the same range with other bytes discards the datagram. `validate`: only the first fragment of a range passes.",
		"Keeps the bytes that arrived first, without comparing.",
		"RFC 5722 §4; RFC 1858 §4 shows the attack",
	}, {
		ruleEnd,
		"Two fragments with different ends discard the datagram.",
		"Discards what it has, and starts again with the next fragment.",
		"the purpose of RFC 5722 §4: an honest source does not send both",
	}, {
		ruleBeyond,
		"Data beyond the end that the last fragment sets discards the datagram.",
		"Discards what it has, and starts again with the next fragment.",
		"as above",
	}, {
		ruleEmpty,
		"A fragment without payload is dropped alone.",
		"Discards the datagram with the fragment's identification.",
		"RFC 8200 §4.5 does not define such fragments; if they discarded the datagram, an attacker could use them for that",
	}, {
		ruleUnaligned,
		"A fragment that is not the last, with a length that is not a multiple of 8, is dropped alone.",
		"IPv4: truncates it and continues. IPv6: drops it alone and reports it to the source.",
		"RFC 791 §3.2, RFC 8200 §4.5",
	}, {
		ruleTooLong,
		"A fragment that ends beyond 65,535 bytes, headers included, is dropped alone if its own fields show it, and discards the datagram if only the first fragment's headers show it.",
		"IPv4: discards the datagram during reassembly. IPv6: drops the fragment alone and reports it to the source.",
		"RFC 791 §3.1, RFC 8200 §4.5",
	}, {
		ruleTruncated,
		"A datagram that is too short to have the ports that a rule needs is dropped.",
		"Leaves this to the transport protocol.",
		"RFC 1858 §3: an unreadable header must not bypass a rule",
	}, {
		ruleTiny,
		"`validate`: a first fragment without the whole transport header discards the datagram. `reassemble` needs no such rule.",
		"Reassembles the datagram.",
		"RFC 1858 §3, RFC 3128",
	}, {
		ruleDenied,
		"A datagram that the policy drops does not arrive.",
		"Has no policy in this test.",
		"the purpose of the box",
	},
}

// TestConformanceDocument compares docs/conformance.md with the rules.
func TestConformanceDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Where fragwall differs from Linux

` + "`make integration`" + ` sends random sequences of IPv4 and IPv6 fragments to a Linux host and
to another one behind the box, and compares what their sockets receive. The sequences
are valid datagrams that are fragmented at random, reordered, duplicated and mutated
in many ways. The host behind the box must receive exactly the datagrams that a model
of the box predicts, in ` + "`reassemble`, with either `emit`, and in `validate`" + `. If the
host without the box receives something else, one of these rules must explain it. This
shows that the host reassembles the same datagram that the policy judged.

To compare other sequences, or more:

` + "```sh\ngo test -v -run TestKernelAgrees ./integration -sequences 1000000 -seed 7 -timeout 2h\n```" + `

| rule | fragwall | Linux | why |
|---|---|---|---|
`)
	for _, r := range conformance {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.name, r.box, r.kernel, r.source)
	}
	b.WriteString(`
The table does not list what Linux drops, too: packets with a wrong IPv4 header checksum,
IPv6 first fragments without their whole header chain (RFC 7112), identical duplicates,
and datagrams whose fragments have contradictory ECN (RFC 3168 §5.3). The box forwards
datagrams with contradictory ECN to the receiver, unless it sends them as one packet.
`)
	compareDocument(t, "../docs/conformance.md", b.String())
}

// compareDocument fails the test if a document differs from the generated text. With -update, it
// writes the document.
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
