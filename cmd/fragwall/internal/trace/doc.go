// Package trace captures the frames of a running instance with the decisions on them.
//
//	wire ──► Hub ──► ring ──► Hub.Serve ──► control socket ──► Decoder ──► Output
//	          │
//	          └─► the next observer
//
// Without clients, the next observer observes the wire directly, and a [Hub] costs nothing. While
// there are clients, the Hub observes the wire: the goroutines of the wire call it, and it copies
// the frames that match the [Request] of a client into the client's ring. The ring has a fixed size
// and is allocated in advance. The Hub takes no lock and does not block: if the ring is full, the
// frames are counted as missed. [Hub.Serve] runs on the goroutine of the client, and only this
// goroutine waits for the client. In the command, a [Decoder] decodes the stream and calls a [Sink],
// such as [Output], on the same goroutine.
//
// The wire does not see what the fast path forwards or drops. While there are clients, the Hub
// keeps flows that may match out of the fast path.
//
// The package imports control for the stream, record, frametext, selector, exit, wire, filter,
// filter/flow, packet and packet/verdict, and tun/capture for its output.
package trace
