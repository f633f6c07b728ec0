// Package takeover is how a process takes over from the one that runs, over a
// connection between the two. The new process asks, the old one gives:
//
//	new (Take)                                  old (Give)
//	request, by the control socket  ──────────►
//	                                ◄──────────  offer, descriptors
//	copy                            ──────────►
//	                                ◄──────────  state, while it goes on
//	hold                            ──────────►
//	                                ◄──────────  held, and the rest of the state
//	take                            ──────────►
//	                                ◄──────────  go: it does nothing from here on
//	running                         ──────────►  it ends
//
// Either says "kept", and why, where it breaks off. Up to "go" the old process goes on as
// before then, as where it finds the connection closed, or waits in vain. From "go" on it goes on only where the
// new one dies before it says "running". The new process that finds the connection
// closed goes on where it has the whole state and the old process is dead, which the
// process's descriptor (pidfd) says; or else it ends.
//
// A message is a kind, its length and JSON; state is a sequence of chunks. Descriptors
// go with the offer (SCM_RIGHTS, unix(7)). The package knows nothing of what is handed
// over, and imports nothing of fragwall's.
package takeover
