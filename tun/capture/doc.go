// Package capture reads and writes files of Ethernet frames: pcap of both byte
// orders with micro- and nanoseconds, and pcapng.
//
// The writers are gopacket's pcapgo. The readers are our own: captures are
// untrusted input, and pcapgo keeps whatever a file describes, however much that is,
// refuses versions and lengths that tcpdump reads, and knows neither a frame's
// direction nor the length of its frame check sequence.
//
// In comes a stream, compressed by gzip or not; out go frames one at a time,
// each lent until the next, with the time and the interface that they were
// captured at. A [Writer] takes frames the same way. The memory that either
// takes does not depend on what is in the capture.
//
// A Reader or Writer belongs to one goroutine. The package opens no files and
// imports nothing of fragwall's.
package capture
