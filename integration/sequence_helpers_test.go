package integration_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet"
	"fragwall/packet/packettest"
)

// deniedPort is the destination port that oraclePolicy drops.
const deniedPort = 666

// sequence is a sequence of fragments of one or more datagrams, in the order in which one source
// sends them. Each sequence has its own source.
type sequence struct {
	number int
	src    netip.Addr
	pieces []piece
}

// piece is a packet with a fragment's fields. It may be malformed.
type piece struct {
	packettest.Datagram
	offset  int // in bytes
	data    []byte
	more    bool
	tos     uint8 // IPv4 TOS or IPv6 traffic class; the low two bits are ECN
	ttl     uint8
	corrupt bool // the IPv4 header checksum is wrong
	padding int  // bytes after the packet
}

// frame returns the piece as an Ethernet frame.
func (p *piece) frame() []byte {
	p.TTL = p.ttl
	f := p.Fragment(p.offset, p.data, p.more)
	ip := f[header.EthernetMinimumSize+4*len(p.Tags):]
	if p.Src.Is4() {
		ip[1] = p.tos
		h := header.IPv4(ip)
		h.SetChecksum(0)
		h.SetChecksum(^checksum.Checksum(ip[:h.HeaderLength()], 0))
		if p.corrupt {
			h.SetChecksum(h.Checksum() + 1)
		}
	} else {
		ip[0] |= p.tos >> 4
		ip[1] |= p.tos << 4
	}
	return append(f, make([]byte, p.padding)...)
}

// end returns the offset of the first byte after the piece.
func (p *piece) end() int { return p.offset + len(p.data) }

// protocols lists the upper-layer protocols of sequences: two whose header the box reads, and one
// that it does not know (RFC 3692).
var protocols = []uint8{packet.ProtocolUDP, packet.ProtocolTCP, 253}

// newSequence returns the n-th sequence of a seed, sent by the source with the number source.
func newSequence(seed uint64, n, source int, receiver func(ipv6 bool) netip.Addr) sequence {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	ipv6 := n%2 == 1
	s := sequence{number: n, src: sourceOf(source, ipv6)}
	d := packettest.Datagram{Src: s.src, Dst: receiver(ipv6), ID: r.Uint32N(1 << 16), Protocol: protocols[r.IntN(len(protocols))]}
	d.Payload = randomPayload(r, d.Protocol)
	if ipv6 && r.IntN(4) == 0 {
		withExtensionHeaders(r, &d)
	}
	s.pieces = cut(r, d)
	for range []int{0, 0, 0, 1, 1, 2, 3}[r.IntN(7)] {
		mutations[r.IntN(len(mutations))](r, &s.pieces)
	}
	switch r.IntN(5) {
	case 0:
		slices.Reverse(s.pieces)
	case 1, 2:
		r.Shuffle(len(s.pieces), func(i, j int) { s.pieces[i], s.pieces[j] = s.pieces[j], s.pieces[i] })
	}
	return s
}

// sourceOf returns the address of the n-th source, in a network to which both receivers have a
// route.
func sourceOf(n int, ipv6 bool) netip.Addr {
	if ipv6 {
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff}
		binary.BigEndian.PutUint32(b[12:], uint32(n))
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte{10, 128 | byte(n>>16)&127, byte(n >> 8), byte(n)})
}

// randomPayload returns a transport header with ports and random bytes.
func randomPayload(r *rand.Rand, protocol uint8) []byte {
	n := 24 + r.IntN([]int{64, 1400, 4000, 9000}[r.IntN(4)])
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	port := uint16(53)
	if r.IntN(6) == 0 {
		port = deniedPort
	}
	binary.BigEndian.PutUint16(b[2:], port)
	if protocol == packet.ProtocolUDP {
		binary.BigEndian.PutUint16(b[4:], uint16(n))
	}
	return b
}

// withExtensionHeaders inserts destination options before or after the fragment header.
func withExtensionHeaders(r *rand.Rand, d *packettest.Datagram) {
	const destination, fragment = 60, 44
	options := []byte{0, 0, 1, 4, 0, 0, 0, 0} // PadN
	if r.IntN(2) == 0 {
		d.FirstBefore, d.Before = destination, slices.Clone(options)
		d.Before[0] = fragment
		return
	}
	d.FirstAfter, d.After = destination, slices.Clone(options)
	d.After[0] = d.Protocol
}

// cut splits a datagram into pieces of random sizes, in order.
func cut(r *rand.Rand, d packettest.Datagram) []piece {
	whole := d.Fragmentable()
	largest := []int{2, 8, 64, 174}[r.IntN(4)]
	largest = max(largest, len(whole)/8/24) // at most about 50 pieces
	var pieces []piece
	for at := 0; at < len(whole); {
		n := min(8*(1+r.IntN(min(largest, 174))), len(whole)-at)
		pieces = append(pieces, piece{Datagram: d, offset: at, data: whole[at : at+n], more: at+n < len(whole), ttl: 64})
		at += n
	}
	return pieces
}

// mutations lists changes to a sequence, by the network or by an attacker.
var mutations = []func(r *rand.Rand, pieces *[]piece){
	lose, duplicate, duplicate, overlap, overlapSameBytes, otherBytes, otherEnd, beyondEnd, unaligned, empty,
	tooLong, otherPort, otherProtocol, corrupted, congestion, otherTTL, padded, reuse, atomic, withOptions, withPriorities,
}

// anyOf returns a copy of a random piece.
func anyOf(r *rand.Rand, pieces []piece) piece {
	p := pieces[r.IntN(len(pieces))]
	p.data = slices.Clone(p.data)
	return p
}

// insert inserts a piece at a random position.
func insert(r *rand.Rand, pieces *[]piece, p piece) {
	*pieces = slices.Insert(*pieces, r.IntN(len(*pieces)+1), p)
}

func lose(r *rand.Rand, pieces *[]piece) {
	if len(*pieces) > 1 {
		i := r.IntN(len(*pieces))
		*pieces = slices.Delete(*pieces, i, i+1)
	}
}

func duplicate(r *rand.Rand, pieces *[]piece) { insert(r, pieces, anyOf(r, *pieces)) }

// overlap inserts a piece that may cover parts of other pieces, or several pieces.
func overlap(r *rand.Rand, pieces *[]piece) {
	p := anyOf(r, *pieces)
	if p.more = true; p.offset > 0 && r.IntN(2) == 0 {
		p.offset -= 8
	}
	p.data = make([]byte, 8*(1+r.IntN(64)))
	if p.offset == 0 {
		copy(p.data, p.After)
	}
	insert(r, pieces, p)
}

// overlapSameBytes inserts a piece that has the same bytes as those that it overlaps.
func overlapSameBytes(r *rand.Rand, pieces *[]piece) {
	p := anyOf(r, *pieces)
	whole := p.Fragmentable()
	lo := 8 * r.IntN(len(whole)/8)
	hi := min(lo+8*(1+r.IntN(64)), len(whole))
	p.offset, p.data, p.more = lo, whole[lo:hi], hi < len(whole)
	insert(r, pieces, p)
}

// otherBytes inserts a piece with the range of another piece, but with other bytes.
func otherBytes(r *rand.Rand, pieces *[]piece) {
	p := anyOf(r, *pieces)
	from := 0
	if p.offset == 0 {
		from = len(p.After)
	}
	if from < len(p.data) {
		p.data[from+r.IntN(len(p.data)-from)] ^= 1 << r.IntN(8)
	}
	insert(r, pieces, p)
}

// otherPort inserts a second first fragment, with another destination port.
func otherPort(r *rand.Rand, pieces *[]piece) {
	for _, p := range *pieces {
		if p.offset == 0 && len(p.data) >= len(p.After)+4 {
			p.data = slices.Clone(p.data)
			port := p.data[len(p.After)+2:]
			if binary.BigEndian.Uint16(port) == deniedPort {
				binary.BigEndian.PutUint16(port, 53)
			} else {
				binary.BigEndian.PutUint16(port, deniedPort)
			}
			insert(r, pieces, p)
			return
		}
	}
}

// otherEnd inserts another last fragment, mostly with another end.
func otherEnd(r *rand.Rand, pieces *[]piece) {
	p := anyOf(r, *pieces)
	p.more = false
	if len(p.data) > 8 && r.IntN(2) == 0 {
		p.data = p.data[:len(p.data)-1-r.IntN(8)]
	}
	insert(r, pieces, p)
}

func beyondEnd(r *rand.Rand, pieces *[]piece) {
	p := anyOf(r, *pieces)
	p.offset = (len(p.Fragmentable()) + 7 + 8*r.IntN(3)) &^ 7
	p.data, p.more = make([]byte, 8*(1+r.IntN(8))), r.IntN(2) == 0
	insert(r, pieces, p)
}

func unaligned(r *rand.Rand, pieces *[]piece) {
	p := anyOf(r, *pieces)
	if p.more = true; len(p.data) > 1 {
		p.data = p.data[:len(p.data)-1]
		insert(r, pieces, p)
	}
}

func empty(r *rand.Rand, pieces *[]piece) {
	p := anyOf(r, *pieces)
	if p.data = nil; p.offset > 0 || p.more {
		insert(r, pieces, p)
	}
}

func tooLong(r *rand.Rand, pieces *[]piece) {
	p := anyOf(r, *pieces)
	p.offset, p.data, p.more = 65528-8*r.IntN(2), make([]byte, 8*(1+r.IntN(3))), r.IntN(2) == 0
	insert(r, pieces, p)
}

// otherProtocol changes the upper-layer protocol of a piece.
func otherProtocol(r *rand.Rand, pieces *[]piece) {
	p := &(*pieces)[r.IntN(len(*pieces))]
	p.Protocol = protocols[r.IntN(len(protocols))]
}

func corrupted(r *rand.Rand, pieces *[]piece) {
	p := anyOf(r, *pieces)
	if p.Src.Is4() {
		p.corrupt = true
		insert(r, pieces, p)
	}
}

// congestion sets the ECN bits of all pieces to a random value, and those of some to another one.
func congestion(r *rand.Rand, pieces *[]piece) {
	base := uint8(r.IntN(4))
	for i := range *pieces {
		if (*pieces)[i].tos = base; r.IntN(8) == 0 {
			(*pieces)[i].tos = uint8(r.IntN(4))
		}
	}
}

func otherTTL(r *rand.Rand, pieces *[]piece) {
	(*pieces)[r.IntN(len(*pieces))].ttl = uint8(1 + r.IntN(255))
}

func padded(r *rand.Rand, pieces *[]piece) {
	(*pieces)[r.IntN(len(*pieces))].padding = r.IntN(20)
}

// reuse appends the fragments of another datagram with the same identification.
func reuse(r *rand.Rand, pieces *[]piece) {
	d := anyOf(r, *pieces).Datagram
	d.Payload = randomPayload(r, d.Protocol)
	*pieces = append(*pieces, cut(r, d)...)
}

// atomic inserts an atomic IPv6 fragment (RFC 6946): a whole packet with a fragment header.
func atomic(r *rand.Rand, pieces *[]piece) {
	p := anyOf(r, *pieces)
	if whole := p.Fragmentable(); p.Src.Is6() && len(whole) <= 1400 {
		p.offset, p.data, p.more = 0, whole, false
		insert(r, pieces, p)
	}
}

// withOptions adds options to some IPv4 pieces.
func withOptions(r *rand.Rand, pieces *[]piece) {
	for i := range *pieces {
		if p := &(*pieces)[i]; p.Src.Is4() && r.IntN(2) == 0 {
			p.Options = []byte{1, 1, 1, 0} // three times no operation, then end of options
		}
	}
}

// withPriorities adds priority tags to some pieces. They have VLAN 0, so they do not change the VLAN
// (IEEE 802.1Q §6.9).
func withPriorities(r *rand.Rand, pieces *[]piece) {
	for i := range *pieces {
		p := &(*pieces)[i]
		p.Tags = nil
		for range r.IntN(3) {
			p.Tags = append(p.Tags, packet.Tag{TPID: [...]uint16{0x8100, 0x88a8}[r.IntN(2)], TCI: uint16(r.IntN(16)) << 12})
		}
	}
}
