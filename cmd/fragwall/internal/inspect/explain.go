package inspect

import (
	"context"
	"encoding/json"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/explain"
	"fragwall/rules"
)

// requestExplain has a [rules.Question] as its argument and an [explain.LiveAnswer] as its
// answer.
const requestExplain = "explain"

func (s *server) explain(_ context.Context, argument json.RawMessage, to *control.Stream) error {
	var q rules.Question
	if err := json.Unmarshal(argument, &q); err != nil {
		return &exit.UsageError{Err: err}
	}
	d, err := q.Datagram(nil)
	if err != nil {
		return &exit.UsageError{Err: err}
	}
	return to.SendJSON(explain.AskLive(s.Config(), s.Bump, d))
}

// Explain returns the decision of an instance on the datagram of a question.
func (c Client) Explain(ctx context.Context, q rules.Question) (a explain.LiveAnswer, err error) {
	err = c.ask(ctx, requestExplain, q, &a)
	return a, err
}
