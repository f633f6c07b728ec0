// Package takeover implements the protocol by which a new process takes over from the running one,
// over a connection between the two. The new process asks, the old one gives:
//
//	new (Take)                                  old (Give)
//	request, by the control socket  ──────────►
//	                                ◄──────────  offer, descriptors
//	copy                            ──────────►
//	                                ◄──────────  state, while it continues to forward
//	hold                            ──────────►
//	                                ◄──────────  held, and the rest of the state
//	take                            ──────────►
//	                                ◄──────────  go: it does nothing from here on
//	running                         ──────────►  it ends
//
// Either process can abort with "kept" and a reason. The old process then continues as before. It
// does the same if the connection is closed, or if the time is up: [Limits] bound each step, and the
// time from "hold" to "running", during which no frames are read. So that only one of the two runs,
// the new process does not begin to run in the last part of that time. The old process closes the
// connection when it gets "running". If the new process finds the connection closed before, it
// continues only if it has the whole state and the old process is dead, which it learns from the
// process's descriptor (pidfd). Otherwise it ends.
//
// A message consists of a kind, its length and JSON. State is a sequence of chunks. Descriptors are
// sent with the offer (SCM_RIGHTS, unix(7)). The package does not interpret what is handed over, and
// imports nothing of fragwall's.
package takeover
