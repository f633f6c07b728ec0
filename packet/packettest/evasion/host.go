package evasion

import (
	"encoding/binary"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// Overlap decides which bytes count if fragments overlap. It reports whether the bytes of a new
// fragment replace those of an old one, given the offsets of both.
type Overlap func(old, new int) bool

// Overlap policies of operating systems (Shankar and Paxson, "Active Mapping", 2003, §3.3;
// Novak, "Target-Based Fragmentation Reassembly", 2005). A host that refuses overlaps (RFC
// 5722) needs no model: it never reassembles a datagram on which these disagree.
var overlapModels = []struct {
	name    string
	overlap Overlap
}{
	{"first", func(_, _ int) bool { return false }},
	{"last", func(_, _ int) bool { return true }},
	{"BSD", func(old, new int) bool { return new < old }},
	{"BSD-right", func(old, new int) bool { return old <= new }},
	{"Linux", func(old, new int) bool { return new <= old }},
}

// Host is a receiver behind the filter.
type Host struct {
	Name    string
	Overlap Overlap
	Timeout time.Duration // from the first fragment of a datagram
	Far     bool          // behind a router: packets with a TTL of 1 do not reach it
	// Strict hosts discard an IPv6 datagram with overlapping fragments (RFC 5722), as all
	// current systems do.
	Strict bool
}

// Hosts returns a receiver of each kind that an attacker could exploit to distinguish it
// from others.
func Hosts() []Host {
	var all []Host
	for _, m := range overlapModels {
		for _, timeout := range []time.Duration{15 * time.Second, 30 * time.Second, 60 * time.Second, 120 * time.Second} {
			for _, far := range []bool{false, true} {
				all = append(all, Host{Name: m.name, Overlap: m.overlap, Timeout: timeout, Far: far})
			}
		}
	}
	return all
}

// Delivered is a datagram that a host reassembled.
type Delivered struct {
	Key   string // fields that all fragments of the datagram share
	Frame []byte // the datagram in one frame, to be decoded and judged
}

// Receive returns the datagrams that the host reassembles from frames, which are in the
// order of their times.
func (h Host) Receive(frames []Frame) []Delivered {
	var delivered []Delivered
	waiting := map[string]*assembly{}
	for _, f := range frames {
		var p packet.Parsed
		if p.Decode(f.Data) != verdict.Passed || h.Far && p.HopLimit <= 1 {
			continue
		}
		key := keyOf(f, &p)
		if !p.Fragment.Present {
			delivered = append(delivered, Delivered{key, f.Data[:p.End]})
			continue
		}
		a := waiting[key]
		if a == nil || f.At >= a.began+h.Timeout {
			a = &assembly{began: f.At}
			waiting[key] = a
		}
		overlapped := a.add(f.Data, &p, h.Overlap)
		a.refused = a.refused || overlapped && h.Strict && p.Kind == packet.IPv6
		if a.complete() {
			delete(waiting, key)
			whole := a.frame()
			if p.Decode(whole) == verdict.Passed {
				delivered = append(delivered, Delivered{key, whole})
			}
		}
	}
	return delivered
}

// keyOf returns the key by which a host assigns fragments to datagrams. The side and the VLANs
// identify the host, or its interface.
func keyOf(f Frame, p *packet.Parsed) string {
	b := []byte{byte(f.From)}
	for _, tag := range p.VLANs() {
		b = binary.BigEndian.AppendUint16(b, tag.TPID)
		b = binary.BigEndian.AppendUint16(b, tag.VID())
	}
	b = append(b, p.Src.AsSlice()...)
	b = append(b, p.Dst.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, p.Fragment.ID)
	if p.Kind == packet.IPv4 {
		b = append(b, p.Protocol)
	}
	return string(b)
}

// assembly is an incomplete datagram in a host.
type assembly struct {
	began   time.Duration
	first   []byte // the frame with the first fragment
	payload []byte
	owner   []int // for each byte, the offset of the fragment that it is from; -1: none
	end     int   // 0: unknown
	refused bool
}

// add adds a fragment, and reports whether it overlaps others.
func (a *assembly) add(frame []byte, p *packet.Parsed, overlap Overlap) (overlapped bool) {
	start, data := p.Fragment.Offset, frame[p.Fragment.Payload:p.End]
	end := start + len(data)
	for len(a.payload) < end {
		a.payload, a.owner = append(a.payload, 0), append(a.owner, -1)
	}
	for i, b := range data {
		old := a.owner[start+i]
		overlapped = overlapped || old >= 0
		if old < 0 || overlap(old, start) {
			a.payload[start+i], a.owner[start+i] = b, start
		}
	}
	if start == 0 && (a.first == nil || overlap(0, 0)) {
		a.first = frame
	}
	if !p.Fragment.More && (a.end == 0 || overlap(start, start)) {
		a.end = end
	}
	return overlapped
}

func (a *assembly) complete() bool {
	if a.end == 0 || a.first == nil || a.refused {
		return false
	}
	for _, owner := range a.owner[:a.end] {
		if owner < 0 {
			return false
		}
	}
	return true
}

// frame returns the datagram in one frame, with the headers of the first fragment,
// without LLC: the length might not be possible in 802.3.
func (a *assembly) frame() []byte {
	var p packet.Parsed
	p.Decode(a.first)
	f := packettest.Datagram{Tags: p.Tags[:p.TagCount]}.Ethernet(p.EtherType, a.first[p.Network:p.Fragment.Payload])
	copy(f, a.first[:2*header.EthernetAddressSize])
	link := len(f) - (p.Fragment.Payload - p.Network)
	network := f[link:]
	if p.Kind == packet.IPv4 {
		binary.BigEndian.PutUint16(network[2:], uint16(len(network)+a.end))
		binary.BigEndian.PutUint16(network[6:], 0)
		h := header.IPv4(network)
		h.SetChecksum(0)
		h.SetChecksum(^checksum.Checksum(h, 0))
	} else {
		network[p.Fragment.NextHeader-p.Network] = f[len(f)-header.IPv6FragmentHeaderSize]
		f = f[:len(f)-header.IPv6FragmentHeaderSize]
		binary.BigEndian.PutUint16(network[4:], uint16(len(f)-link-header.IPv6MinimumSize+a.end))
	}
	return append(f, a.payload[:a.end]...)
}
