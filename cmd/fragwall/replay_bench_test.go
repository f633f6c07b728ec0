package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/tun/capture"
)

// BenchmarkReplay replays captures of whole packets and of fragments, from file to file.
// Figures are per frame and byte of the input.
func BenchmarkReplay(b *testing.B) {
	small := packettest.UDP(client4, server4, packettest.Body(64-42)).Frame()
	large := packettest.UDP(client4, server4, packettest.Body(1472)).Frame()
	fragmented := numbered(client4, server4, 8000, 1).Fragments(1480)
	for _, c := range []struct {
		name   string
		frames [][]byte
		count  int // of frames
		more   []string
	}{
		{"64 bytes", [][]byte{small}, 1_000_000, nil},
		{"64 bytes json dropped", [][]byte{small}, 1_000_000, []string{"--json", "--dropped", "dropped"}},
		{"1514 bytes", [][]byte{large}, 200_000, nil},
		{"8000 bytes in 6", fragmented, 120_000, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.Chdir(b.TempDir())
			writeFile(b, "policy.toml", replayPolicy)
			size := writeMany(b, "in", c.frames, c.count)
			args := append(strings.Fields("replay -c policy.toml --from inside -o out in"), c.more...)
			b.SetBytes(size)
			for b.Loop() {
				if code := execute(args, io.Discard, io.Discard); code != 0 {
					b.Fatal(code)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.count), "ns/frame")
		})
	}
}

// writeMany writes a pcap of count frames, one per millisecond, by repeating frames. It returns
// the file size in bytes.
func writeMany(b *testing.B, name string, frames [][]byte, count int) (size int64) {
	b.Helper()
	many := func(yield func(capture.Frame) bool) {
		for i := range count {
			f := frames[i%len(frames)]
			size += int64(16 + len(f))
			if !yield(capture.Frame{Data: f, Length: len(f), Time: began.Add(time.Duration(i) * time.Millisecond)}) {
				return
			}
		}
	}
	writePcap(b, name, false, many)
	return size
}
