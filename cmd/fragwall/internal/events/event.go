package events

import (
	"context"
	"log/slog"
	"time"

	"fragwall/cmd/fragwall/internal/record"
	"fragwall/wire"
)

// newEvent returns the event of a decision.
func newEvent(kind kind, back background, d *wire.Decision, at time.Time) record.Event {
	return record.Event{Kind: kindNames[kind], Decision: record.Of(d, at), Background: backgroundNames[back]}
}

// logEvent logs an event with the time of the event. A link that goes down is a warning.
func logEvent(e *record.Event, to slog.Handler) error {
	level := slog.LevelInfo
	if e.Link == "down" {
		level = slog.LevelWarn
	}
	if !to.Enabled(context.Background(), level) {
		return nil
	}
	r := slog.NewRecord(e.Time, level, e.Kind, 0)
	e.Each(func(name string, value slog.Value) { r.AddAttrs(slog.Attr{Key: name, Value: value}) })
	return to.Handle(context.Background(), r)
}

// logCount logs the number of suppressed events with the same kind, reason, rule and
// background.
func logCount(e *record.Event, to slog.Handler) error {
	r := slog.NewRecord(time.Now(), slog.LevelInfo, "suppressed", 0)
	r.AddAttrs(slog.String("kind", e.Kind))
	addText(&r, "reason", e.Reason)
	addText(&r, "rule", e.Rule)
	addText(&r, "background", e.Background)
	r.AddAttrs(slog.Uint64("suppressed", e.Suppressed))
	return to.Handle(context.Background(), r)
}

func addText(r *slog.Record, key, value string) {
	if value != "" {
		r.AddAttrs(slog.String(key, value))
	}
}
