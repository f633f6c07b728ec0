// Package record represents a decision of the wire, and an event about one, as users see them: in
// the JSON of replay, of capture, of the log and of /api/status.
//
//	wire.Decision ──► [Of] ──► Decision ──┬── JSON
//	                              │       └── fields of the log
//	                              └── Event
//
// Only [Decision.Each] and [Event.Each] define the names, order and presence of the fields.
// docs/json.md documents them and promises their stability. A record does not refer to the decision
// that it was made from. Making one for a whole packet allocates nothing. The package keeps no
// state.
//
// It imports wire and packet for its input, packet/verdict for reasons, and rules for the names of
// protocols.
package record
