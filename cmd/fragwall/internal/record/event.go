package record

import "log/slog"

// Event is what is logged of a decision, or of the link of a side's device.
type Event struct {
	Kind string `json:"kind"` // "drop", "match" of a rule with log = true, or "link"
	Decision
	// Background is the protocol of what every host sends by itself to all others
	// on its link, such as "mld" or "mdns".
	Background string `json:"background,omitempty"`
	// Device and Link are of an event of kind "link", which has no other fields but
	// the time and the side: a NIC, or a TAP where the side has none, and "up" or
	// "down".
	Device string `json:"device,omitempty"`
	Link   string `json:"link,omitempty"`
	// Suppressed is how many of the same kind, reason, rule and background there
	// were since the last that was logged.
	Suppressed uint64 `json:"suppressed,omitempty"`
}

// Each calls field for the fields that apply, in their order, except for the time.
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
