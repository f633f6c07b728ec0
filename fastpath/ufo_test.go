package fastpath

import (
	"fmt"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/ufo"
)

// TestFragmentsInOnePiece passes up fragments, which then leave as the datagram that the kernel
// is to fragment. After that, none counts as in user space. A datagram that the kernel is to
// cut into smaller datagrams was passed up as it leaves, and is not counted.
func TestFragmentsInOnePiece(t *testing.T) {
	const segment = 480 // bytes; the kernel runs a test program on at most one page
	f := open(t, Options{Mode: packet.ModeReassemble, Drops: DropSilently})
	for tags, list := range [][]packet.Tag{nil, {{TPID: 0x8100, TCI: 10}}} {
		for _, size := range []int{481, 952, 3000} {
			for from := range verdict.Side(verdict.Sides) {
				t.Run(fmt.Sprintf("%d bytes after %d tags from %v", size, tags, from), func(t *testing.T) {
					d := packettest.UDP(client4, server4, packettest.Body(size))
					d.ID, d.Tags = uint32(size), list
					fragments := d.Fragments(segment)
					var frames []tun.Frame
					for _, fragment := range fragments {
						frames = append(frames, tun.Frame{Data: fragment})
						if way := run(t, f.in(from), fragment, 0); way != passedUp {
							t.Fatal(way)
						}
					}
					before := f.onTheirWay()
					if before != len(fragments) {
						t.Fatalf("%d of %d count as in user space", before, len(fragments))
					}
					whole, found := ufo.Find(frames)
					if !found {
						t.Fatal("the fragments do not form a datagram")
					}
					frame := whole.Header(make([]byte, ufo.HeaderSize))[tun.HeaderSize:]
					for i := range whole.Len() {
						frame = append(frame, whole.Payload(i)...)
					}
					if way := run(t, f.out(from.Other()), frame, segment); way != passedUp {
						t.Fatal(way)
					}
					if n := f.onTheirWay(); n != 0 {
						t.Errorf("%d of %d still count as in user space", n, len(fragments))
					}
					run(t, f.out(from.Other()), d.Frame(), segment)
					if n := f.onTheirWay(); n != 0 {
						t.Errorf("%d fragments too many left", -n)
					}
				})
			}
		}
	}
}

// onTheirWay returns the number of fragments that were passed up and have not left.
func (f *FastPath) onTheirWay() (n int) {
	for i := range f.memory.orders {
		n += int(int32(f.memory.orders[i].Up - f.memory.orders[i].Done))
	}
	return n
}
