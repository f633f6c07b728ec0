package ufo

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"fragwall/packet"
	"fragwall/packet/checksum"
	"fragwall/packet/packettest"
	"fragwall/tun"
)

var (
	client = netip.MustParseAddrPort("10.0.0.1:40000")
	server = netip.MustParseAddrPort("192.0.2.1:5300")
)

// datagram returns a datagram of 5,008 bytes including the UDP header: four fragments of up to
// 1,480 bytes.
func datagram() packettest.Datagram {
	d := packettest.UDP(client, server, packettest.Body(5000))
	d.ID = 0xbeef
	return d
}

// zeroComplement returns a datagram whose computed checksum is 0, which is sent as 0xffff
// (RFC 768).
func zeroComplement() packettest.Datagram {
	d := packettest.UDP(client, server, make([]byte, 2000))
	copy(d.Payload[udpChecksum:], "\x00\x00")
	checksum.Put(d.Payload, sizeUDP, checksum.PseudoHeader(client.Addr(), server.Addr(), protocolUDP, len(d.Payload)))
	copy(d.Payload[udpChecksum:], "\xff\xff")
	return d
}

func framesOf(fragments [][]byte) (frames []tun.Frame) {
	for _, f := range fragments {
		frames = append(frames, tun.Frame{Data: f})
	}
	return frames
}

// ip returns the offset of a fragment's IPv4 header after a number of tags.
func ip(tags int) int { return 14 + 4*tags }

// seal recomputes the IPv4 header checksum of an untagged frame.
func seal(frame []byte) { checksum.Put(frame[ip(0):][:sizeIPv4], ipChecksum, 0) }

// failer is a [testing.T] or a [rapid.T].
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// cut fragments the single frame of a datagram as the kernel does (net/ipv4/af_inet.c,
// inet_gso_segment).
func cut(t failer, d *Datagram) (fragments [][]byte) {
	t.Helper()
	whole := d.Header(make([]byte, HeaderSize))
	var o tun.Offload
	o.Decode(whole)
	headers := whole[tun.HeaderSize:]
	if want := (tun.Offload{GSO: tun.GSOFragments, HeaderLength: o.HeaderLength, SegmentSize: o.SegmentSize}); o != want {
		t.Fatalf("offload %+v, want %+v", o, want)
	}
	var payload []byte
	for i := range d.Len() {
		payload = append(payload, d.Payload(i)...)
	}
	if n := int(o.HeaderLength); n < len(headers)+sizeUDP || n > len(headers)+len(payload) {
		t.Fatalf("header length %d, with %d bytes of headers and %d of payload", n, len(headers), len(payload))
	}
	h := headers[len(headers)-sizeIPv4:]
	if int(binary.BigEndian.Uint16(h[ipLength:])) != sizeIPv4+len(payload) || checksum.Sum(h, 0) != checksum.Valid {
		t.Fatalf("the header of the single frame is % x", h)
	}
	addresses := checksum.Sum(h[ipSource:], checksum.Add(protocolUDP, uint16(len(payload))))
	checksum.Put(payload, udpChecksum, addresses)
	if binary.BigEndian.Uint16(payload[udpChecksum:]) == 0 {
		binary.BigEndian.PutUint16(payload[udpChecksum:], 0xffff)
	}
	for at := 0; at < len(payload); at += int(o.SegmentSize) {
		part := payload[at:min(at+int(o.SegmentSize), len(payload))]
		f := append(slices.Clone(headers), part...)
		h := f[len(headers)-sizeIPv4:][:sizeIPv4]
		field := uint16(at / 8)
		if at+len(part) < len(payload) {
			field |= moreFragments
		}
		binary.BigEndian.PutUint16(h[ipFragment:], field)
		binary.BigEndian.PutUint16(h[ipLength:], uint16(sizeIPv4+len(part)))
		checksum.Put(h, ipChecksum, 0)
		fragments = append(fragments, f)
	}
	return fragments
}

// TestFind checks that Find finds datagrams, and that the kernel would make the same fragments.
func TestFind(t *testing.T) {
	of := func(body, size int, change func(*packettest.Datagram)) [][]byte {
		d := packettest.UDP(client, server, packettest.Body(body))
		d.ID = 7
		if change != nil {
			change(&d)
		}
		return d.Fragments(size)
	}
	tags := func(tpids ...uint16) func(*packettest.Datagram) {
		return func(d *packettest.Datagram) {
			for i, tpid := range tpids {
				d.Tags = append(d.Tags, packet.Tag{TPID: tpid, TCI: uint16(0xe00a + i)})
			}
		}
	}
	for name, fragments := range map[string][][]byte{
		"four":                      of(5000, 1480, nil),
		"two":                       of(1600, 1480, nil),
		"the last as long as all":   of(2952, 1480, nil),
		"the last of one byte":      of(2953, 1480, nil),
		"two, the last of 9 bytes":  of(1481, 1480, nil),
		"the first a UDP header":    of(16, 8, nil),
		"the most fragments":        of(8*MaxFragments-8, 8, nil),
		"the longest packet":        of(65507, 1480, nil),
		"one tag":                   of(5000, 1480, tags(0x8100)),
		"a service tag":             of(5000, 1480, tags(0x88a8)),
		"two tags":                  of(5000, 1480, tags(0x88a8, 0x8100)),
		"a priority tag and a tag":  of(5000, 1480, tags(0x8100, 0x8100)),
		"other DSCP, ECN and TTL":   of(5000, 1480, func(d *packettest.Datagram) { d.TrafficClass, d.TTL = 0xb9, 1 }),
		"a checksum that is 0xffff": zeroComplement().Fragments(1480),
	} {
		t.Run(name, func(t *testing.T) {
			d, found := Find(framesOf(append(fragments, datagram().Frame())))
			if !found || d.Len() != len(fragments) {
				t.Fatalf("found %v, %d of %d", found, d.Len(), len(fragments))
			}
			expectSame(t, cut(t, &d), fragments)
		})
	}
}

func expectSame(t failer, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d fragments, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("fragment %d is\n% x, want\n% x", i, got[i], want[i])
		}
	}
}

// TestFindNone changes a datagram's fragments in one way, so that the kernel would not make the
// same ones.
func TestFindNone(t *testing.T) {
	put := func(at int, b ...byte) func(f [][]byte) {
		return func(f [][]byte) {
			copy(f[1][at:], b)
			seal(f[1])
		}
	}
	every := func(change func(frame []byte)) func(f [][]byte) {
		return func(f [][]byte) {
			for i := range f {
				change(f[i])
			}
		}
	}
	for name, change := range map[string]func(f [][]byte){
		"destination MAC":   put(0, 0x06),
		"source MAC":        put(6, 0x06),
		"version":           put(ip(0), 0x55),
		"type of service":   put(ip(0)+ipTOS, 1),
		"identification":    put(ip(0)+ipID, 1),
		"identification, 2": put(ip(0)+ipID+1, 1),
		"TTL":               put(ip(0)+ipTTL, 63),
		"protocol":          put(ip(0)+ipTTL+1, 136),
		"source":            put(ip(0)+ipSource, 11),
		"destination":       put(ip(0)+ipSource+7, 2),
		"DF in one":         put(ip(0)+ipFragment, 0x60),
		"reserved bit":      put(ip(0)+ipFragment, 0xa0),
		"DF in all": every(func(f []byte) {
			f[ip(0)+ipFragment] |= 0x40
			seal(f)
		}),
		"no UDP": every(func(f []byte) {
			f[ip(0)+ipTTL+1] = 136
			seal(f)
		}),
		"header checksum": func(f [][]byte) { f[2][ip(0)+ipChecksum]++ },
		"order":           func(f [][]byte) { f[1], f[2] = f[2], f[1] },
		"one twice":       func(f [][]byte) { f[2] = f[1] },
		"the last early":  func(f [][]byte) { f[1] = f[3] },
		"no first":        func(f [][]byte) { copy(f, f[1:]) },
		"padding":         func(f [][]byte) { f[3] = append(f[3], 0) },
		"length": func(f [][]byte) {
			binary.BigEndian.PutUint16(f[3][ip(0)+ipLength:], uint16(len(f[3])-14-1))
			seal(f[3])
		},
		"payload":         func(f [][]byte) { f[2][1000]++ },
		"UDP checksum":    func(f [][]byte) { f[0][ip(0)+sizeIPv4+udpChecksum]++ },
		"no UDP checksum": func(f [][]byte) { copy(f[0][ip(0)+sizeIPv4+udpChecksum:], "\x00\x00") },
		"UDP length": func(f [][]byte) {
			udp := f[0][ip(0)+sizeIPv4:]
			udp[udpLength+1]++ // the checksum stays valid
			sum := checksum.Add(binary.BigEndian.Uint16(udp[udpChecksum:]), ^uint16(1))
			binary.BigEndian.PutUint16(udp[udpChecksum:], sum)
		},
		"the last is missing":     func(f [][]byte) { f[3] = datagram().Frame()[:1000] },
		"a frame without headers": func(f [][]byte) { f[1] = f[1][:20] },
		"nothing in a frame":      func(f [][]byte) { f[1] = nil },
		"header length in all": every(func(f []byte) {
			f[ip(0)]++
			seal(f)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			f := datagram().Fragments(1480)
			if _, found := Find(framesOf(f)); !found {
				t.Fatal("not found before the change")
			}
			change(f)
			if d, found := Find(framesOf(f)); found || d.Len() != 0 {
				t.Errorf("%v, %d fragments", found, d.Len())
			}
		})
	}
}

// TestFindNoOther checks that Find refuses datagrams of other kinds.
func TestFindNoOther(t *testing.T) {
	of := func(change func(*packettest.Datagram)) [][]byte {
		d := datagram()
		change(&d)
		return d.Fragments(1480)
	}
	v6 := packettest.UDP(netip.MustParseAddrPort("[2001:db8::1]:40000"), netip.MustParseAddrPort("[2001:db8::2]:53"), packettest.Body(5000))
	long := packettest.UDP(client, server, packettest.Body(65515)) // a packet of 65,543 bytes
	larger := packettest.UDP(client, server, packettest.Body(1992))
	none := packettest.UDP(client, server, packettest.Body(2*1480-8))
	noComplement := zeroComplement()
	copy(noComplement.Payload[udpChecksum:], "\x00\x00")
	for name, fragments := range map[string][][]byte{
		"two, the last of 8 bytes":           packettest.UDP(client, server, packettest.Body(1480)).Fragments(1480),
		"IPv6":                               v6.Fragments(1448),
		"options":                            of(func(d *packettest.Datagram) { d.Options = []byte{1, 1, 1, 0} }),
		"LLC":                                of(func(d *packettest.Datagram) { d.LLC = packettest.SNAP }),
		"three tags":                         of(func(d *packettest.Datagram) { d.Tags = []packet.Tag{{TPID: 0x8100}, {TPID: 0x8100}, {TPID: 0x8100}} }),
		"an old tag":                         of(func(d *packettest.Datagram) { d.Tags = []packet.Tag{{TPID: 0x9100}} }),
		"too long":                           long.Fragments(1480),
		"too many":                           packettest.UDP(client, server, packettest.Body(8*MaxFragments)).Fragments(8),
		"a whole packet":                     {datagram().Frame(), datagram().Frame()},
		"one fragment":                       datagram().Fragments(1480)[:1],
		"a larger last":                      {larger.Fragment(0, larger.Payload[:800], true), larger.Fragment(800, larger.Payload[800:], false)},
		"different sizes":                    {larger.Fragment(0, larger.Payload[:800], true), larger.Fragment(800, larger.Payload[800:1000], true), larger.Fragment(1000, larger.Payload[1000:], false)},
		"no multiple of 8":                   {larger.Fragment(0, larger.Payload[:1204], true), larger.Fragment(1200, larger.Payload[1204:], false)},
		"an empty last":                      {none.Fragment(0, none.Payload[:1480], true), none.Fragment(1480, none.Payload[1480:], true), none.Fragment(2960, nil, false)},
		"no checksum although 0 is computed": noComplement.Fragments(1480),
		"an Ethernet header":                 {datagram().Frame()[:14], datagram().Frame()[:14]},
	} {
		if d, found := Find(framesOf(fragments)); found || d.Len() != 0 {
			t.Errorf("%s: %v, %d fragments", name, found, d.Len())
		}
	}
	tagged := of(func(d *packettest.Datagram) { d.Tags = []packet.Tag{{TPID: 0x8100, TCI: 10}} })
	tagged[1][15]++
	if _, found := Find(framesOf(tagged)); found {
		t.Error("fragments of different VLANs")
	}
	for _, o := range []tun.Offload{{Flags: tun.NeedsChecksum}, {GSO: tun.GSOUDP, SegmentSize: 100}} {
		frames := framesOf(datagram().Fragments(1480))
		if frames[1].Offload = o; o.Flags|o.GSO == 0 {
			t.Fatal("no offload")
		}
		if _, found := Find(frames); found {
			t.Errorf("found with %+v", o)
		}
	}
	frames := framesOf(datagram().Fragments(1480))
	frames[0].Offload.Flags = tun.DataValid
	if _, found := Find(frames); !found {
		t.Error("not found if the NIC verified the checksum")
	}
}

// TestFindHeaderChecksum changes a header checksum of 0 to 0xffff, which is equally valid but is
// not what the kernel writes.
func TestFindHeaderChecksum(t *testing.T) {
	for id := range uint32(1 << 16) {
		d := datagram()
		d.ID = id
		first := d.Fragment(0, d.Payload[:1480], true)
		field := first[ip(0)+ipChecksum:][:2]
		if binary.BigEndian.Uint16(field) != 0 {
			continue
		}
		f := d.Fragments(1480)
		if _, found := Find(framesOf(f)); !found {
			t.Error("not found with the checksum 0")
		}
		copy(f[0][ip(0)+ipChecksum:], "\xff\xff")
		if _, found := Find(framesOf(f)); found {
			t.Error("found with the checksum 0xffff")
		}
		return
	}
	t.Fatal("no identification makes the checksum 0")
}

// TestFindOnlyTheSame changes random bytes of fragments. If Find still finds a datagram, the
// kernel would make the same bytes.
func TestFindOnlyTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := packettest.UDP(client, server, packettest.Body(rapid.IntRange(1, 3000).Draw(t, "body")))
		d.ID = rapid.Uint32Range(0, 0xffff).Draw(t, "id")
		for range rapid.IntRange(0, 2).Draw(t, "tags") {
			d.Tags = append(d.Tags, packet.Tag{TPID: rapid.SampledFrom([]uint16{0x8100, 0x88a8}).Draw(t, "tpid"), TCI: 10})
		}
		f := d.Fragments(8 * rapid.IntRange(1, 180).Draw(t, "size"))
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			frame := f[rapid.IntRange(0, len(f)-1).Draw(t, "frame")]
			frame[rapid.IntRange(0, min(len(frame), 60)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
			if len(d.Tags) == 0 && rapid.Bool().Draw(t, "sealed") {
				seal(frame)
			}
		}
		if found, ok := Find(framesOf(f)); ok {
			expectSame(t, cut(t, &found), f)
		}
	})
}
