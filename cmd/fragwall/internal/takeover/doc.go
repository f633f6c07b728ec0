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
// Either process can abort with "kept" and a reason. Up to "go", the old process then continues as
// before. It does the same if the connection is closed or if it waits too long. After "go", the old
// process continues only if the new one dies before it sends "running". If the new process finds the
// connection closed, it continues only if it has the whole state and the old process is dead, which
// it learns from the process's descriptor (pidfd). Otherwise it ends.
//
// A message consists of a kind, its length and JSON. State is a sequence of chunks. Descriptors are
// sent with the offer (SCM_RIGHTS, unix(7)). The package does not interpret what is handed over, and
// imports nothing of fragwall's.
package takeover
