package record

import "log/slog"

// Event is a logged event: a decision, or a change of a device's link.
type Event struct {
	Kind string `json:"kind"` // "drop", "match" (of a rule with log = true), or "link"
	Decision
	// Background is the protocol of traffic that hosts send to their link by themselves, such
	// as "mld" or "mdns".
	Background string `json:"background,omitempty"`
	// Device and Link are set for the kind "link", which has no other fields except the time
	// and the side. Device is the NIC, or the TAP if the side has no NIC. Link is "up" or
	// "down".
	Device string `json:"device,omitempty"`
	Link   string `json:"link,omitempty"`
	// Suppressed is the number of events with the same kind, reason, rule and background since
	// the last one that was logged.
	Suppressed uint64 `json:"suppressed,omitempty"`
}

// Each calls field for each field that applies, in order, except for the time.
func (e *Event) Each(field Field) {
	if e.Link != "" {
		field("from", slog.StringValue(e.From))
		field("device", slog.StringValue(e.Device))
		field("link", slog.StringValue(e.Link))
		field("kind", slog.StringValue(e.Kind))
		return
	}
	e.Decision.Each(field)
	field.text("background", e.Background)
	field("kind", slog.StringValue(e.Kind))
	if e.Suppressed > 0 {
		field("suppressed", slog.Uint64Value(e.Suppressed))
	}
}
