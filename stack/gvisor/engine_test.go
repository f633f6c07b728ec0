package gvisor

import (
	"flag"
	"os"
	"testing"

	"gvisor.dev/gvisor/pkg/refs"

	"fragwall/packet/packettest"
)

// TestMain fails if a test leaks a reference to one of gVisor's buffers.
func TestMain(m *testing.M) {
	flag.Parse()
	refs.SetLeakMode(refs.LeaksPanic)
	code := m.Run()
	refs.DoLeakCheck()
	os.Exit(code)
}

// span is a fragment's range in bytes.
type span struct {
	start, length int
	last          bool
}

// spans returns fragments of body with these ranges. The test's cleanup releases them.
func spans(t *testing.T, body []byte, list ...span) []Fragment {
	var fragments []Fragment
	for _, s := range list {
		fragments = append(fragments, Fragment{
			Frame:  NewFrame(body[s.start:][:s.length]),
			Start:  uint16(s.start),
			Length: uint16(s.length),
			More:   !s.last,
		})
	}
	t.Cleanup(func() {
		for _, f := range fragments {
			f.Frame.Release()
		}
	})
	return fragments
}

// TestEngineRefusesIncompleteDatagrams passes fragments to gVisor that the table would never
// consider complete. The engine must refuse each list, and keep nothing that could mix with the
// next datagram.
func TestEngineRefusesIncompleteDatagrams(t *testing.T) {
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
		{"complete before the last", []span{sound[0], {2000, 2000, true}, sound[2]}},
		{"small ones without the middle", []span{{0, 8, false}, {8, 8, false}, {24, 8, false}, {32, 8, true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := NewEngine()
			defer e.Close()
			if whole, ok := e.Reassemble(spans(t, body, tt.list...)); ok {
				whole.Release()
				t.Error("complete")
			}
			whole, ok := e.Reassemble(spans(t, body, sound...))
			if !ok {
				t.Fatal("the next datagram is not complete")
			}
			defer whole.Release()
			if got := string(whole.Beginning(whole.Size())); got != string(body) {
				t.Error("the next datagram has wrong bytes")
			}
		})
	}
}

// TestNumberOfPieces counts the pieces that a datagram is passed to gVisor in. For each piece,
// gVisor takes as many steps as there are pieces.
func TestNumberOfPieces(t *testing.T) {
	body := packettest.Body(1 << 16)
	tests := []struct {
		name        string
		length, sum int // of the fragments
		want        int // pieces
	}{
		{"two of 8 bytes", 8, 16, 2},
		{"three of 8 bytes", 8, 24, 2},
		{"8,190 of 8 bytes", 8, 65520, 5},
		{"of 520 bytes, 31 to a piece", 520, 65000, 5},
		{"of an MTU of 576", 552, 65136, 6},
		{"of Ethernet", 1480, 65120, 5},
		{"just too long for two to fit a piece", 8200, 65600 - 8200, 7},
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
				n, size := nextPiece(fragments)
				piece := newPiece(fragments[:n], size)
				payload := piece.AsSlice()
				if len(payload) != n*tt.length {
					t.Fatalf("piece %d: %d bytes of %d fragments", pieces, len(payload), n)
				}
				if string(payload) != string(body[at:][:len(payload)]) {
					t.Fatalf("piece %d has wrong bytes", pieces)
				}
				piece.Release()
				at, fragments = at+n*tt.length, fragments[n:]
				pieces++
			}
			if pieces != tt.want {
				t.Errorf("%d pieces, want %d", pieces, tt.want)
			}
		})
	}
}

// TestFramesKeepTheirBytes reuses memory, in sizes around each power of two, while other frames
// are still in use.
func TestFramesKeepTheirBytes(t *testing.T) {
	var kept []Frame
	var want [][]byte
	for round := range 3 {
		for _, size := range []int{14, 63, 64, 65, 128, 1514, 2048, 2049, 65557} {
			b := packettest.Body(size + round)[round:]
			NewFrame(b).Release()
			kept, want = append(kept, NewFrame(b)), append(want, b)
		}
	}
	for i, f := range kept {
		if string(f.Bytes()) != string(want[i]) {
			t.Errorf("frame %d of %d bytes has wrong bytes", i, len(want[i]))
		}
		f.Release()
	}
}
