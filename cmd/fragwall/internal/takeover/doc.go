// Package takeover implements the protocol by which a new process takes over from the running one,
// over a connection between the two:
//
//	new (Take)                                  old (Give)
//	request, by the control socket  ──────────►
//	                                ◄──────────  offer, descriptors
//	copy                            ──────────►
//	                                ◄──────────  state, while it continues to forward
//	hold                            ──────────►
//	                                ◄──────────  held, and the rest of the state
//	take                            ──────────►
//	                                ◄──────────  go: it no longer works from here on
//	running                         ──────────►  it ends
//	                                ◄──────────  closed: the new one runs
//
// Either process can abort with "kept" and a reason. The old process then continues as before. It
// also continues if the connection is closed or a time limit is exceeded: [Limits] bound each step,
// and the time from "hold" to "running", during which no frames are read. So that only one of the
// two processes runs, only the old one decides: if it receives "running" in time, it closes the
// connection, and the new process runs after that. Before, the new process waits without a time
// limit, because the old one may be stopped (SIGSTOP). If the connection is closed before "running",
// the new process runs only if it has the whole state and the old process is dead, which it detects
// with a descriptor of that process (pidfd). Otherwise the new process ends.
//
// A message has a type, a length and JSON. State is a sequence of chunks. Descriptors are sent with
// the offer (SCM_RIGHTS, unix(7)). The package does not interpret what is handed over. It imports no
// other package of fragwall.
package takeover
