package stack

import (
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"

	"fragwall/packet/packettest"
)

// span is a fragment's range, in bytes.
type span struct {
	start, length int
	last          bool
}

// spans returns fragments with these ranges of one body, for the test's time.
func spans(t *testing.T, body []byte, list ...span) []fragment {
	var fragments []fragment
	for _, s := range list {
		fragments = append(fragments, fragment{
			frame:  buffer.NewViewWithData(body[s.start:][:s.length]),
			start:  uint16(s.start),
			length: uint16(s.length),
			more:   !s.last,
		})
	}
	t.Cleanup(func() {
		for _, f := range fragments {
			f.frame.Release()
		}
	})
	return fragments
}

// TestEngineHasTheLastWord gives gVisor fragments that the table would never
// take for whole. It must refuse each, and hold nothing that meets the next
// datagram.
func TestEngineHasTheLastWord(t *testing.T) {
	const size = 6000
	body := packettest.Body(size)
	sound := []span{{0, 2000, false}, {2000, 2000, false}, {4000, 2000, true}}
	tests := []struct {
		name string
		list []span
	}{
		{"without the first", sound[1:]},
		{"without the middle", []span{sound[0], sound[2]}},
		{"without the last", sound[:2]},
		{"overlap", []span{sound[0], {1992, 2008, false}, sound[2]}},
		{"whole before the last", []span{sound[0], {2000, 2000, true}, sound[2]}},
		{"small ones without the middle", []span{{0, 8, false}, {8, 8, false}, {24, 8, false}, {32, 8, true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bothFamilies(t, func(t *testing.T, f family) {
				e := newEngine()
				defer e.close()
				if whole := e.reassemble(f, spans(t, body, tt.list...)); whole != nil {
					whole.DecRef()
					t.Error("whole")
				}
				whole := e.reassemble(f, spans(t, body, sound...))
				if whole == nil {
					t.Fatal("the next datagram is not whole")
				}
				defer whole.DecRef()
				if got := string(whole.Data().AsRange().ToSlice()); got != string(body) {
					t.Error("the next datagram has other bytes")
				}
			})
		})
	}
}

// TestPiecesAreFew counts what goes into gVisor: each piece costs it as many
// steps as there are pieces.
func TestPiecesAreFew(t *testing.T) {
	body := packettest.Body(1 << 16)
	tests := []struct {
		name        string
		length, sum int // of the fragments
		want        int // pieces
	}{
		{"two of 8 bytes", 8, 16, 2},
		{"three of 8 bytes", 8, 24, 2},
		{"8,190 of 8 bytes", 8, 65520, 5},
		{"just so that two are not copied together", 520, 65000, 5},
		{"of an MTU of 576", 552, 65136, 6},
		{"of Ethernet", 1480, 65120, 5},
		{"just so that two don't fit a piece", 8200, 65600 - 8200, 7},
		{"larger than a piece", 20000, 60000, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var list []span
			for at := 0; at < tt.sum; at += tt.length {
				list = append(list, span{at, tt.length, at+tt.length == tt.sum})
			}
			fragments := spans(t, body, list...)
			pieces, at := 0, 0
			for len(fragments) > 0 {
				p, n := nextPiece(familyIPv4, fragments)
				if p.offset != at || p.more != fragments[n-1].more || p.data.Size() != int64(n*tt.length) {
					t.Fatalf("piece %d: offset %d, %d bytes of %d fragments", pieces, p.offset, p.data.Size(), n)
				}
				if string(p.data.Flatten()) != string(body[at:][:p.data.Size()]) {
					t.Fatalf("piece %d has other bytes", pieces)
				}
				p.data.Release()
				at, fragments = at+n*tt.length, fragments[n:]
				pieces++
			}
			if pieces != tt.want {
				t.Errorf("%d pieces, want %d", pieces, tt.want)
			}
		})
	}
}
