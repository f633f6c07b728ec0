// Package record has a decision of the wire, and an event about one, as users get
// them: the JSON of replay, of capture, of the log and of /api/status.
//
//	wire.Decision ──► [Of] ──► Decision ──┬── JSON
//	                              │       └── fields of the log
//	                              └── Event
//
// The names, the order and the presence of all fields are in [Decision.Each]
// and [Event.Each] alone. docs/json.md documents them, and promises to keep
// them. A record holds nothing of the decision that it was made of, and making one
// for a whole packet allocates nothing. The package keeps no state.
//
// It imports wire and packet for what it reads, packet/verdict for reasons, and rules
// for the names of protocols.
package record
