// Package trace shows the frames of a running instance as it decides on them.
//
//	wire ──► Hub ──► ring ──► Hub.Serve ──► control socket ──► Decoder ──► Printer
//	          │                                                             pcapng
//	          └─► the other observer                                        JSON
//
// While nobody looks, the wire's observer is the other one alone, and a [Hub] costs
// nothing. For as long as somebody looks the Hub observes: the goroutines of the wire
// call it, and it copies what a [Request] asks for into a ring of that client, which is
// bounded and allocated in advance. It takes no lock and waits for nothing: where the
// ring is full the frames are counted as missed. [Hub.Serve] runs on the goroutine of
// the client, and alone waits for it. On the other end a [Decoder] reads the stream, and
// calls a [Sink] on the goroutine of the command.
//
// What a fast path forwards or drops does not come by the wire. For as long as somebody
// looks, the Hub has the flows that may match go through the wire.
//
// The package imports control for the stream, record, frametext, selector, exit, wire, filter,
// filter/flow, packet and packet/verdict, and tun/capture for what it writes.
package trace
