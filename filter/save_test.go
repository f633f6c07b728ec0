package filter_test

import (
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet/verdict"
)

// TestLimitsSurviveReload uses up a limit. Then it reloads, or has another process take over. If the
// limit is the same, it stays used up.
func TestLimitsSurviveReload(t *testing.T) {
	policy := func(limit int) *filter.Policy {
		return &filter.Policy{Rules: []filter.Rule{{Name: "some", Action: verdict.Accept, Limit: filter.Rate{Count: limit, Per: time.Hour}}}}
	}
	for _, tt := range []struct {
		name  string
		limit int
		want  verdict.Action
	}{{"the same limit", 1, verdict.Drop}, {"another limit", 2, verdict.Accept}} {
		reload := func(w *wire) *filter.Table { return filter.Compile(policy(tt.limit), w.table) }
		restore := func(w *wire) *filter.Table {
			table := filter.Compile(policy(tt.limit), nil)
			table.RestoreRules()(w.table.SaveRules(), w.now)
			return table
		}
		for how, next := range map[string]func(*wire) *filter.Table{"reloaded": reload, "restored": restore} {
			w := newWire(t, policy(1))
			d := w.view(verdict.Inside, udp(families[0].in, families[0].out))
			w.table.Judge(d, w.clock)
			w.table = next(w)
			if got := w.table.Judge(d, w.clock).Action; got != tt.want {
				t.Errorf("%s with %s: %v, want %v", how, tt.name, got, tt.want)
			}
			want := filter.Count{Datagrams: 1, OverLimit: 1}
			if tt.want == verdict.Accept {
				want = filter.Count{Datagrams: 2}
			}
			if n := w.table.Count(0); n.Datagrams != want.Datagrams || n.OverLimit != want.OverLimit {
				t.Errorf("%s with %s: %+v", how, tt.name, n)
			}
		}
	}
}
