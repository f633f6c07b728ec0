package stack

import (
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
)

// TestCancelFreesWhatWaits cancels a datagram of which gVisor has one or two
// fragments, at every place where the overlapping one could go wrong. Fed
// again without the first of them, it must not be whole.
func TestCancelFreesWhatWaits(t *testing.T) {
	type fragment struct {
		offset, length int
		more           bool
	}
	tests := []struct {
		name string
		has  []fragment
		rest fragment // would have made it whole
	}{
		{"first of 8 bytes", []fragment{{0, 8, true}}, fragment{8, 8, false}},
		{"first of 16 bytes", []fragment{{0, 16, true}}, fragment{16, 1, false}},
		{"second block", []fragment{{8, 8, true}, {16, 8, false}}, fragment{0, 8, true}},
		{"second block, last, odd", []fragment{{8, 3, false}}, fragment{0, 8, true}},
		{"second block, long", []fragment{{8, 1480, false}}, fragment{0, 8, true}},
		{"third block", []fragment{{16, 8, false}}, fragment{0, 16, true}},
		{"middle", []fragment{{1480, 1480, true}, {2960, 5, false}}, fragment{0, 1480, true}},
		{"last possible block", []fragment{{65528, 7, false}}, fragment{0, 65528, true}},
		{"last block but one", []fragment{{65520, 8, true}, {65528, 1, false}}, fragment{0, 65520, true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bothFamilies(t, func(t *testing.T, f family) {
				e := newEngine()
				defer e.close()
				feed := func(g fragment) bool {
					whole := e.feed(piece{family: f, number: 1, offset: g.offset, more: g.more}, buffer.NewViewSize(g.length))
					if whole != nil {
						whole.DecRef()
					}
					return whole != nil
				}
				for _, g := range tt.has {
					if feed(g) {
						t.Fatal("whole too early")
					}
				}
				first := tt.has[0]
				e.cancel(piece{family: f, number: 1, offset: first.offset, more: first.more}, first.length)
				if e.whole != nil {
					t.Fatal("the fragment that cancels was taken for a whole packet")
				}
				if feed(tt.rest) {
					t.Error("whole although it was cancelled")
				}
			})
		})
	}
}

// TestEngineNumbers has datagrams apart that differ in the lowest and in the
// highest bit that their number is told by.
func TestEngineNumbers(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		e := newEngine()
		defer e.close()
		for _, number := range []uint64{0, 1, 1 << 15, 1 << 16, 1 << 39} {
			if e.feed(piece{family: f, number: number, offset: 8}, buffer.NewViewSize(8)) != nil {
				t.Fatal("whole without a first fragment")
			}
		}
		for _, number := range []uint64{0, 1, 1 << 15, 1 << 16, 1 << 39} {
			whole := e.feed(piece{family: f, number: number, more: true}, buffer.NewViewSize(8))
			if whole == nil {
				t.Fatalf("datagram %#x is not whole", number)
			}
			whole.DecRef()
		}
	})
}
