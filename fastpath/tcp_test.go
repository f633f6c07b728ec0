package fastpath

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// exchange is a connection whose ends send valid segments, and sometimes others.
type exchange struct {
	*rand.Rand
	ends  [verdict.Sides]netip.AddrPort
	seq   [verdict.Sides]uint32 // the next number of each side
	acked [verdict.Sides]uint32 // the last acknowledgement of each side
	scale bool
	last  []byte // the last segment
	from  verdict.Side
}

// segment returns a segment with a right checksum.
func (e *exchange) segment(from verdict.Side, seq, ack uint32, flags byte, window uint16, options []byte, body int) []byte {
	src, dst := e.ends[from], e.ends[from.Other()]
	t := make([]byte, 20+len(options)+body)
	binary.BigEndian.PutUint16(t, src.Port())
	binary.BigEndian.PutUint16(t[2:], dst.Port())
	binary.BigEndian.PutUint32(t[4:], seq)
	binary.BigEndian.PutUint32(t[8:], ack)
	t[12], t[13] = byte(5+len(options)/4)<<4, flags
	binary.BigEndian.PutUint16(t[14:], window)
	copy(t[20:], options)
	binary.BigEndian.PutUint16(t[16:], ^addUp(t, pseudoSum(src.Addr(), dst.Addr(), packet.ProtocolTCP, len(t))))
	d := packettest.Datagram{Src: src.Addr(), Dst: dst.Addr(), Protocol: packet.ProtocolTCP, Payload: t}
	return d.Frame()
}

const (
	fin, syn, rst, psh, ack, urg = 1, 2, 4, 8, 16, 32
)

// open sends the handshake.
func (e *exchange) open(r *rig) {
	options := []byte{2, 4, 5, 180, 4, 2, 1, 1}
	if e.scale {
		options = append(options, 1, 3, 3, byte(e.IntN(15)))
	}
	e.seq = [2]uint32{e.Uint32(), e.Uint32()}
	r.send(verdict.Inside, e.segment(verdict.Inside, e.seq[0], 0, syn, 64240, options, 0))
	e.seq[0]++
	r.send(verdict.Outside, e.segment(verdict.Outside, e.seq[1], e.seq[0], syn|ack, 65160, options, 0))
	e.seq[1]++
	r.send(verdict.Inside, e.segment(verdict.Inside, e.seq[0], e.seq[1], ack, 502, nil, 0))
	e.acked = [2]uint32{e.seq[1], e.seq[0]}
}

// next returns another segment.
func (e *exchange) next() (verdict.Side, []byte) {
	from := verdict.Side(e.IntN(2))
	peer := from.Other()
	if e.last != nil && e.IntN(12) == 0 {
		return e.from, e.last // retransmitted
	}
	seq, number := e.seq[from], e.acked[from]
	flags, window, body := byte(ack|psh*e.IntN(2)), uint16(pick(e.Rand, 502, 502, 0, 1, 65535, 100)), pick(e.Rand, 0, 0, 1, 100, 1400, 1400)
	if e.IntN(2) == 0 {
		number = e.acked[from] + uint32(e.IntN(int(e.seq[peer]-e.acked[from])+1))
	}
	var options []byte
	switch e.IntN(8) {
	case 0, 1, 2:
		options = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	case 3:
		options = append(options, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2)
		fallthrough
	case 4:
		blocks := 1 + e.IntN(3)
		options = append(options, 1, 1, 5, byte(2+8*blocks))
		for range blocks {
			left := number + uint32(e.IntN(3000))
			options = binary.BigEndian.AppendUint32(options, left)
			options = binary.BigEndian.AppendUint32(options, left+uint32(e.IntN(3000)))
		}
	case 5:
		options = []byte{8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0}
	}
	forged := false
	switch e.IntN(30) {
	case 0:
		seq, forged = seq+uint32(pick(e.Rand, 1, 5000, 70000, 1<<30, -1, -1400, -70000, -1<<30)), true
	case 1:
		number, forged = number+uint32(pick(e.Rand, 1, 5000, 70000, 1<<30, -1, -1400, -66000, -70000, -1<<30)), true
	case 2:
		flags, forged = byte(pick(e.Rand, syn, syn|ack, ack|urg, rst, 0, fin|syn)), true
	}
	frame := e.segment(from, seq, number, flags, window, options, body)
	if !forged {
		e.seq[from] += uint32(body)
		if int32(number-e.acked[from]) > 0 {
			e.acked[from] = number
		}
	}
	e.last, e.from = frame, from
	return from, frame
}

// TestExchanges sends valid and forged segments of connections. Both wires must handle them
// alike, including the final FIN or RST, whose numbers follow segments that only the program
// has seen.
func TestExchanges(t *testing.T) {
	for _, loose := range []bool{false, true} {
		t.Run(fmt.Sprintf("loose %v", loose), func(t *testing.T) {
			p := stateful(onlyPort53())
			p.Rules = p.Rules[:1] // replies pass only as part of their connection
			p.LooseTCP = loose
			r := newRig(t, p, packet.ModeReassemble)
			connections := 300
			if testing.Short() {
				connections = 40
			}
			for i := range connections {
				hosts := families[[]string{"ipv4", "ipv6"}[i%2]]
				e := &exchange{Rand: rand.New(rand.NewPCG(uint64(i), 7)), scale: i%3 > 0}
				e.ends = [2]netip.AddrPort{netipPort(hosts.client, uint16(20000+i)), hosts.server}
				if !loose || i%4 > 0 {
					e.open(r)
				} else {
					e.seq = [2]uint32{e.Uint32(), e.Uint32()}
					e.acked = [2]uint32{e.seq[1], e.seq[0]}
				}
				for range 100 {
					r.send(e.next())
					if e.IntN(3) > 0 {
						r.settle()
					}
				}
				r.Upkeep(time.Now())
				from := verdict.Side(e.IntN(2))
				r.send(from, e.segment(from, e.seq[from], e.acked[from], pick[byte](e.Rand, fin|ack, rst, rst|ack), 502, nil, 0))
				for range 10 {
					r.send(e.next())
				}
			}
			r.agree()
			if r.ways[forwarded] < connections*10 {
				t.Errorf("%v: %+v", r.ways, r.Stats())
			}
		})
	}
}
