// Package capture reads and writes files of Ethernet frames: pcap of both byte
// orders with micro- and nanoseconds, and pcapng, by gopacket's pcapgo.
//
// In comes a stream, compressed by gzip or not; out go frames one at a time,
// each lent until the next, with the time and the interface that they were
// captured at. A [Writer] takes frames the same way. The memory that either
// takes does not depend on how long the capture is.
//
// A Reader or Writer belongs to one goroutine. The package opens no files and
// imports nothing of ours.
package capture
