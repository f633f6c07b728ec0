package gvisor

import (
	"encoding/binary"
	"fmt"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Rebuild makes new frames from a Whole and its fragments, and appends them to frames. If the
// datagram fits mtu (in bytes, behind the first fragment's link layer), the result is one
// packet. Otherwise it is fragments that fit mtu and are no larger than the largest fragment
// that arrived. The link layer, the IP header and the IPv6 unfragmentable part are those of the
// first fragment. The payload is the one that gVisor reassembled.
//
// The reason is [verdict.FragmentECN] if the ECN bits of the fragments contradict one another
// (RFC 3168 §5.3).
func (w Whole) Rebuild(frames []Frame, fragments []Fragment, mtu int) ([]Frame, verdict.Reason) {
	t, why := templateOf(fragments)
	if why != verdict.Passed {
		return frames, why
	}
	end := w.Size()
	t.room = end
	if mtu = t.parsed.PacketMTU(mtu); t.network(end, false) > mtu {
		t.room = (min(t.largest, mtu) - t.network(0, true)) &^ 7
	}
	payload := w.packet.Data().ToBuffer()
	defer payload.Release()
	for at := 0; at < end; at += t.room {
		frames = append(frames, t.frame(&payload, at))
	}
	return frames, verdict.Passed
}

// template has what the frames of a rebuilt datagram have in common.
type template struct {
	first   []byte // the first fragment's frame, up to its payload
	parsed  packet.Parsed
	largest int   // bytes of the largest fragment's packet
	room    int   // bytes of payload in each frame except the last
	ecn     uint8 // of the datagram
	df      bool  // IPv4: fragments that are sent again keep DF
}

const (
	ecnMask = 0b11
	ecnCE   = 0b11
	flagMF  = header.IPv4FlagMoreFragments << 13
	flagDF  = header.IPv4FlagDontFragment << 13
)

// templateOf determines from all fragments the size of the largest, the ECN bits and DF.
func templateOf(fragments []Fragment) (template, verdict.Reason) {
	var t template
	first := fragments[0].Frame.Bytes()
	t.parsed.Decode(first)
	t.first = first[:t.parsed.Fragment.Payload]
	kind := t.parsed.Kind
	capable, incapable := false, false
	ce := false
	for i := range fragments {
		f := &fragments[i]
		b := f.Frame.Bytes()[f.Network:]
		size := int(f.Payload) - int(f.Network) + int(f.Length)
		ecn := trafficClass(b, kind) & ecnMask
		capable = capable || ecn != 0
		incapable = incapable || ecn == 0
		ce = ce || ecn == ecnCE
		// As in Linux (net/ipv4/ip_fragment.c, max_df_size), DF counts only if the largest
		// fragment had it. Otherwise a small fragment with DF could block a path that the
		// larger ones may use.
		df := kind == packet.IPv4 && binary.BigEndian.Uint16(b[6:])&flagDF != 0
		switch {
		case size > t.largest:
			t.largest, t.df = size, df
		case size == t.largest:
			t.df = t.df || df
		}
	}
	t.ecn = trafficClass(t.first[t.parsed.Network:], kind) & ecnMask
	switch {
	case capable && incapable:
		return t, verdict.FragmentECN
	case ce:
		t.ecn = ecnCE
	}
	return t, verdict.Passed
}

// trafficClass returns the DSCP and ECN bits of a packet.
func trafficClass(b []byte, kind packet.Kind) uint8 {
	if kind == packet.IPv4 {
		return b[1]
	}
	return b[0]<<4 | b[1]>>4
}

// network returns the length in bytes of a packet with the first fragment's headers and length
// bytes of payload. Without fragment, the IPv6 fragment header is not counted.
func (t *template) network(length int, fragment bool) int {
	n := len(t.first) - t.parsed.Network + length
	if t.parsed.Kind == packet.IPv6 && !fragment {
		n -= header.IPv6FragmentHeaderSize
	}
	return n
}

// frame makes the frame with the payload from offset at: all that is left, but at most t.room
// bytes.
func (t *template) frame(payload *buffer.Buffer, at int) Frame {
	end := int(payload.Size())
	length := min(t.room, end-at)
	more := at+length < end
	f := allocate(len(t.first) + length)
	f.write(t.first[:t.parsed.Network])
	if t.parsed.Kind == packet.IPv4 {
		f.write(t.ipv4(at, length, more))
	} else {
		f.write(t.ipv6(at, length, more))
	}
	headers := len(f.Bytes())
	f.memory.frame = f.memory.frame[:headers+length]
	if n, _ := payload.ReadAt(f.Bytes()[headers:], int64(at)); n != length {
		panic(fmt.Sprintf("gvisor: read %d of %d bytes of the reassembled datagram", n, length))
	}
	t.parsed.SetLength(f.Bytes())
	return f
}

// ipv4 returns the IPv4 header. A rebuilt whole packet does not have DF, so that routers may
// fragment it: it may not fit the rest of the path. Fragments keep DF.
func (t *template) ipv4(at, length int, more bool) []byte {
	b := append(header.IPv4{}, t.first[t.parsed.Network:]...)
	if at > 0 {
		b = copiedOptions(b)
	}
	field := uint16(at / 8)
	if more {
		field |= flagMF
	}
	if t.df && (more || at > 0) {
		field |= flagDF
	}
	b[0] = header.IPv4Version<<4 | uint8(len(b)/4)
	b[1] = b[1]&^ecnMask | t.ecn
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+length))
	binary.BigEndian.PutUint16(b[6:], field)
	b.SetChecksum(0)
	b.SetChecksum(^checksum.Checksum(b, 0))
	return b
}

// copiedOptions returns a header with only those options that every fragment must have (RFC 791
// §3.1, the copied flag).
func copiedOptions(b header.IPv4) header.IPv4 {
	const (
		end, noOperation = 0, 1
		copied           = 0x80
	)
	out := append(header.IPv4{}, b[:header.IPv4MinimumSize]...)
	for options := b[header.IPv4MinimumSize:]; len(options) > 0 && options[0] != end; {
		n := 1
		if options[0] != noOperation {
			n = int(options[1]) // Decode has checked that it fits
		}
		if options[0]&copied != 0 {
			out = append(out, options[:n]...)
		}
		options = options[n:]
	}
	for len(out)%4 != 0 {
		out = append(out, end)
	}
	return out
}

// ipv6 returns the IPv6 header and the unfragmentable part, with a fragment header if the
// packet is only a part of the datagram.
func (t *template) ipv6(at, length int, more bool) []byte {
	f := &t.parsed.Fragment
	b := append([]byte{}, t.first[t.parsed.Network:]...)
	fragmentHeader := b[len(b)-header.IPv6FragmentHeaderSize:]
	if at == 0 && !more {
		b[f.NextHeader-t.parsed.Network] = fragmentHeader[0]
		b = b[:len(b)-header.IPv6FragmentHeaderSize]
	} else {
		field := uint16(at)
		if more {
			field |= 1
		}
		binary.BigEndian.PutUint16(fragmentHeader[2:], field)
	}
	b[1] = b[1]&^(ecnMask<<4) | t.ecn<<4
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-header.IPv6MinimumSize+length))
	return b
}
