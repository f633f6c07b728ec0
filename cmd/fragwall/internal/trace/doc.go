// Package trace shows the frames of a running instance as it decides on them.
//
//	wire ──► Hub ──► ring ──► Hub.Serve ──► control socket ──► Decoder ──► Printer
//	          │                                                             pcapng
//	          └─► the other observer                                        JSON
//
// Without clients, the other observer is the wire's only one, and a [Hub] costs nothing. While there
// are clients, the Hub observes: the goroutines of the wire call it, and it copies what a [Request]
// asks for into a ring of that client. The ring is bounded and allocated in advance. The Hub takes no
// lock and does not wait: if the ring is full, the frames are counted as missed. [Hub.Serve] runs on
// the goroutine of the client, and only this goroutine waits for the client. At the other end, a
// [Decoder] reads the stream and calls a [Sink] on the goroutine of the command.
//
// The wire does not see what a fast path forwards or drops. While there are clients, the Hub makes
// the flows that may match go through the wire.
//
// The package imports control for the stream, record, frametext, selector, exit, wire, filter,
// filter/flow, packet and packet/verdict, and tun/capture for its output.
package trace
