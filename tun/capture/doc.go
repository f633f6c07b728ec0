// Package capture reads and writes files of Ethernet frames: pcap in both byte orders,
// with microseconds and nanoseconds, and pcapng.
//
// The writers are gopacket's pcapgo. The readers are written here because captures are
// untrusted input: pcapgo stores everything that a file describes, without a limit,
// refuses versions and lengths that tcpdump reads, and reads neither a frame's direction
// nor the length of its frame check sequence.
//
// A [Reader] takes a stream, compressed by gzip or not. It returns one frame at a time,
// which is valid until the next read, with the time and the interface of its capture. A
// [Writer] takes frames in the same form. The memory of both does not depend on the
// contents of the capture.
//
// A Reader or Writer belongs to one goroutine. The package opens no files.
package capture
