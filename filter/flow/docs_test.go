package flow

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "update the tables of docs/state.md")

const stateDocs = "../../docs/state.md"

// TestStateDocs compares the tables of docs/state.md with those in the code.
func TestStateDocs(t *testing.T) {
	text, err := os.ReadFile(stateDocs)
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	for name, table := range map[string]string{"states": stateTable(), "timeouts": timeoutTable()} {
		before, rest, found := strings.Cut(got, "<!-- "+name+" -->\n")
		_, behind, closed := strings.Cut(rest, "<!-- /"+name+" -->")
		if !found || !closed {
			t.Fatalf("%s has no markers for the table of %s", stateDocs, name)
		}
		got = before + "<!-- " + name + " -->\n" + table + "<!-- /" + name + " -->" + behind
	}
	if got == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s is stale: update it with go test ./filter/flow -update", stateDocs)
	}
	if err := os.WriteFile(stateDocs, []byte(got), 0o644); err != nil {
		t.Fatal(err)
	}
}

func stateTable() string {
	var b strings.Builder
	columns := []kind{kindSyn, kindSynAck, kindFin, kindAck, kindRst}
	fmt.Fprintln(&b, "| state | from | SYN | SYN/ACK | FIN | ACK | RST |\n|---|---|---|---|---|---|---|")
	for state := SynSent; state <= Close; state++ {
		for _, row := range []struct {
			from string
			to   [kinds]State
		}{{"originator", next[state].origin}, {"responder", next[state].reply}} {
			fmt.Fprintf(&b, "| %v | %s |", state, row.from)
			for _, k := range columns {
				switch to := row.to[k]; {
				case to == invalid:
					fmt.Fprint(&b, " invalid |")
				case to == ignored:
					fmt.Fprint(&b, " passes |")
				case state >= TimeWait && to == SynSent:
					fmt.Fprint(&b, " new flow |")
				default:
					fmt.Fprintf(&b, " %v |", to)
				}
			}
			fmt.Fprintln(&b)
		}
	}
	return b.String()
}

func timeoutTable() string {
	var b strings.Builder
	fmt.Fprintln(&b, "| flow | seconds |\n|---|---|")
	seconds := func(what string, t timeout) { fmt.Fprintf(&b, "| %s | %d |\n", what, int(durations[t].Seconds())) }
	for state := SynSent; state <= Close; state++ {
		seconds("TCP, "+state.String(), timeout(state))
	}
	seconds("TCP, ESTABLISHED, data not acknowledged yet, or only one direction seen", unacknowledged)
	seconds("TCP, ESTABLISHED, the same segment three times or more, or a zero window", retransmitted)
	seconds("UDP and UDP-Lite, unanswered or just answered", timeout(Unreplied))
	seconds("UDP and UDP-Lite, stream", stream)
	seconds("GRE, unanswered", timeout(Unreplied))
	seconds("GRE, answered", greStream)
	seconds("ICMP query", timeout(Query))
	for state := Closed; state <= HeartbeatSent; state++ {
		seconds("SCTP, "+state.String(), timeout(state))
	}
	seconds("other protocols", timeout(Generic))
	return b.String()
}
