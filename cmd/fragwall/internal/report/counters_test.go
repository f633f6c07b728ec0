package report

import (
	"log/slog"
	"strings"
	"testing"
)

// TestCounters checks the counters as text, in the order of the reasons, and as log records.
func TestCounters(t *testing.T) {
	_, now := exampleReport()
	in := now.Sides["inside"]
	in.Answered = 3
	now.Sides["inside"] = in
	var text, log strings.Builder
	if err := now.WriteCounters(&text); err != nil {
		t.Fatal(err)
	}
	if want := `from inside  received 1434567, forwarded 1434560, waiting 0, reassembled 0 datagrams
             answered 3 rejected datagrams
             dropped 2: fragment_overlap
             dropped 5: policy_default
from outside received 7, forwarded 2, waiting 1, reassembled 0 datagrams
             dropped 4: policy_default
rule "dns" accept: 20 datagrams, 12345678 bytes
`; text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &text, want)
	}
	now.LogCounters(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	if want := `{"level":"INFO","msg":"counters","from":"inside","received":1434567,"forwarded":1434560,"waiting":0,"reassembled":0,"answered":3,"dropped":{"fragment_overlap":2,"policy_default":5}}
{"level":"INFO","msg":"counters","from":"outside","received":7,"forwarded":2,"waiting":1,"reassembled":0,"answered":0,"dropped":{"policy_default":4}}
{"level":"INFO","msg":"counters","rule":"dns","action":"accept","datagrams":20,"bytes":12345678}
`; log.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &log, want)
	}
}
