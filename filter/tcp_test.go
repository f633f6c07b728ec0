package filter_test

import (
	"encoding/binary"
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// hosts are the two ends of a TCP connection, as their segments show them.
type hosts struct {
	*wire
	family
}

// tcp returns a segment from a side.
func (h *hosts) tcp(from verdict.Side, flags uint8, seq, ack uint32, data int, options ...byte) []byte {
	src, dst := h.in, h.out
	if from == verdict.Outside {
		src, dst = dst, src
	}
	b := make([]byte, 20, 64)
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = uint8(20+len(options))<<2, flags
	binary.BigEndian.PutUint16(b[14:], 1000)
	b = append(append(b, options...), make([]byte, data)...)
	return packettest.Datagram{Src: src.Addr(), Dst: dst.Addr(), Protocol: packet.ProtocolTCP, Payload: b}.Frame()
}

const (
	fin, syn, rst, ack = 1, 2, 4, 16
	inISN, outISN      = 0xfffffff0, 1000 // the sequence numbers of the inside wrap
)

// loosen makes a policy accept connections without their SYN.
func (h *hosts) loosen() {
	p := fromInside()
	p.LooseTCP = true
	h.table = compile(h, p)
}

// open performs the handshake.
func (h *hosts) open() {
	h.Helper()
	h.pass(verdict.Inside, h.tcp(verdict.Inside, syn, inISN, 0, 0, 2, 4, 5, 0xb4, 1, 3, 3, 7))
	h.pass(verdict.Outside, h.tcp(verdict.Outside, syn|ack, outISN, inISN+1, 0, 1, 3, 3, 2))
	h.pass(verdict.Inside, h.tcp(verdict.Inside, ack, inISN+1, outISN+1, 0))
}

// alive checks how long the connection exists without segments.
func (h *hosts) alive(timeout time.Duration) {
	h.Helper()
	probe := h.tcp(verdict.Outside, ack, outISN+1, inISN+1, 0)
	h.now += timeout
	h.pass(verdict.Outside, probe)
	h.now += timeout + 1
	h.block(verdict.Outside, probe)
}

func TestTCPFlow(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		name string
		run  func(h *hosts)
	}{
		{"segments without a connection", func(h *hosts) {
			for _, flags := range []uint8{syn, syn | ack, ack, rst, fin | ack, 0} {
				h.block(verdict.Outside, h.tcp(verdict.Outside, flags, outISN, inISN+1, 0))
			}
		}},
		{"syn without a reply", func(h *hosts) {
			h.pass(verdict.Inside, h.tcp(verdict.Inside, syn, inISN, 0, 0))
			h.now += 120*time.Second + 1
			h.block(verdict.Outside, h.tcp(verdict.Outside, syn|ack, outISN, inISN+1, 0))
		}},
		{"half open", func(h *hosts) {
			h.pass(verdict.Inside, h.tcp(verdict.Inside, syn, inISN, 0, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, syn|ack, outISN, inISN+1, 0))
			h.now += 60*time.Second + 1
			h.block(verdict.Outside, h.tcp(verdict.Outside, syn|ack, outISN, inISN+1, 0))
		}},
		{"established", func(h *hosts) { h.open(); h.alive(5 * day) }},
		{"simultaneous open", func(h *hosts) {
			h.pass(verdict.Inside, h.tcp(verdict.Inside, syn, inISN, 0, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, syn, outISN, 0, 0))
			h.pass(verdict.Inside, h.tcp(verdict.Inside, syn|ack, inISN, outISN+1, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, syn|ack, outISN, inISN+1, 0))
			h.pass(verdict.Inside, h.tcp(verdict.Inside, ack, inISN+1, outISN+1, 0))
			h.alive(5 * day)
		}},
		{"picked up in the middle", func(h *hosts) {
			h.pass(verdict.Inside, h.tcp(verdict.Inside, ack, 77, 88, 10))
			h.block(verdict.Outside, h.tcp(verdict.Outside, ack, 88, 87, 10))
			h.loosen()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, ack, 77, 88, 10))
			h.now += 300 * time.Second
			h.pass(verdict.Outside, h.tcp(verdict.Outside, ack, 88, 87, 10))
			h.block(verdict.Outside, h.tcp(verdict.Outside, syn, 99, 0, 0))
		}},
		{"picked up, no reply", func(h *hosts) {
			h.loosen()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, ack, 77, 88, 10))
			h.now += 300*time.Second + 1
			h.block(verdict.Outside, h.tcp(verdict.Outside, ack, 88, 87, 10))
		}},
		{"one side closed", func(h *hosts) {
			h.open()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 5))
			h.alive(120 * time.Second)
		}},
		{"one side closed, acknowledged", func(h *hosts) {
			h.open()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 5))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, ack, outISN+1, inISN+7, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, ack, outISN+1, inISN+7, 100)) // the other side still sends
			h.pass(verdict.Inside, h.tcp(verdict.Inside, ack, inISN+7, outISN+101, 0))
			h.alive(60 * time.Second)
		}},
		{"both closed, last ACK missing", func(h *hosts) {
			h.open()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 5))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, fin|ack, outISN+1, inISN+7, 0))
			h.now += 30*time.Second + 1
			h.block(verdict.Outside, h.tcp(verdict.Outside, fin|ack, outISN+1, inISN+7, 0))
		}},
		{"both closed at once", func(h *hosts) {
			h.open()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, fin|ack, outISN+1, inISN+1, 0))
			h.pass(verdict.Inside, h.tcp(verdict.Inside, ack, inISN+2, outISN+2, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, ack, outISN+2, inISN+2, 0))
			h.alive(120 * time.Second)
		}},
		{"both closed, opened again", func(h *hosts) {
			h.open()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 5))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, fin|ack, outISN+1, inISN+7, 0))
			h.pass(verdict.Inside, h.tcp(verdict.Inside, ack, inISN+7, outISN+2, 0))
			h.block(verdict.Outside, h.tcp(verdict.Outside, syn, outISN+9, 0, 0)) // a new connection from the wrong side
			h.open()
			h.alive(5 * day)
		}},
		{"reset", func(h *hosts) {
			h.open()
			h.pass(verdict.Outside, h.tcp(verdict.Outside, rst, outISN+1, 0, 0))
			h.alive(10 * time.Second)
		}},
		{"connection refused", func(h *hosts) {
			h.pass(verdict.Inside, h.tcp(verdict.Inside, syn, inISN, 0, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, rst|ack, 0, inISN+1, 0))
			h.block(verdict.Outside, h.tcp(verdict.Outside, rst|ack, 0, inISN+1, 0))
		}},
		{"refused by a blind attacker", func(h *hosts) {
			h.pass(verdict.Inside, h.tcp(verdict.Inside, syn, inISN, 0, 0))
			h.block(verdict.Outside, h.tcp(verdict.Outside, rst|ack, 0, inISN+3, 0))
			h.now += 20 * time.Second
			h.open()
			h.alive(5 * day)
		}},
		{"reset by a blind attacker", func(h *hosts) {
			h.open()
			h.block(verdict.Outside, h.tcp(verdict.Outside, rst, outISN, 0, 0))
			h.block(verdict.Outside, h.tcp(verdict.Outside, rst, outISN+400_000, 0, 0))
			h.alive(5 * day)
		}},
		{"fin by a blind attacker", func(h *hosts) {
			h.open()
			h.block(verdict.Outside, h.tcp(verdict.Outside, fin|ack, outISN+1<<30, inISN+1, 0))
			h.alive(5 * day)
		}},
		{"reset within a scaled window", func(h *hosts) {
			h.open()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, ack, inISN+1, outISN+1, 0))   // 1000 << 7 bytes
			h.pass(verdict.Outside, h.tcp(verdict.Outside, rst, outISN+100_000, 0, 0)) // the host replies with a challenge ACK
			h.alive(5 * day)
		}},
		{"syn on a live connection", func(h *hosts) {
			h.open()
			h.block(verdict.Outside, h.tcp(verdict.Outside, syn, 5, 0, 0))
			h.pass(verdict.Inside, h.tcp(verdict.Inside, syn, 5, 0, 0)) // the host replies with a challenge ACK
			h.pass(verdict.Outside, h.tcp(verdict.Outside, ack, outISN+1, inISN+1, 0))
			h.alive(5 * day)
		}},
	}
	for _, f := range families {
		for _, tt := range tests {
			t.Run(f.name+" "+tt.name, func(t *testing.T) { tt.run(&hosts{newWire(t, fromInside()), f}) })
		}
	}
}
