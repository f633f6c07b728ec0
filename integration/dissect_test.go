package integration_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

var dissections = flag.Int("dissections", 10000, "number of frames to compare with tshark")

// TestTsharkAgrees decodes random frames, and compares the results with those of tshark: the protocol
// after tags and LLC, the VLANs, the source address, and whether there is a source route. A rule must
// explain each difference.
func TestTsharkAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(*seed, 0))
	var frames [][]byte
	for range *dissections {
		frames = append(frames, randomFrame(r))
	}
	counts := map[string]int{}
	for i, theirs := range dissect(t, frames) {
		var p packet.Parsed
		why := p.Decode(frames[i])
		ours := found(&p)
		if why != verdict.Passed {
			counts["dropped: "+why.String()]++
		} else if ours == theirs {
			counts["same: "+strings.Fields(ours)[0]]++
		} else if rule := disagreement(frames[i], &p); rule != "" {
			counts[rule]++
		} else {
			t.Errorf("frame %d: %s; tshark: %s\n% x", i, ours, theirs, frames[i])
		}
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%6d  %s", counts[what], what)
	}
}

// disagreement returns the rule that explains why tshark decodes a frame differently, or "".
func disagreement(frame []byte, p *packet.Parsed) string {
	llc := llcOf(frame)
	switch {
	case llc != nil && (llc[0]&1 != 0 || llc[1]&1 != 0 || llc[2] != 3):
		return "fragwall ignores the group, response and poll bits of LLC"
	case p.Kind == packet.NonIP && llc != nil && llc[2]&1 == 0:
		return "fragwall decodes no packet in numbered LLC frames, which belong to connections"
	case p.LLC >= 18 && binary.BigEndian.Uint16(frame[p.LLC-6:]) == 0x88a8:
		return "tshark reads no 802.3 length after a service tag"
	case p.Kind == packet.IPv4 && oddOptions(frame[p.Network+20:p.Upper]):
		return "tshark stops after an IPv4 option whose length its type does not permit"
	}
	return ""
}

// oddOptions reports whether an IPv4 option has a length that its type does not permit.
func oddOptions(b []byte) bool {
	for len(b) > 0 && b[0] != 0 {
		if b[0] == 1 {
			b = b[1:]
			continue
		}
		switch size := b[1]; b[0] {
		case 148:
			if size != 4 {
				return true
			}
		case 130:
			if size != 11 {
				return true
			}
		default:
			if size < 4 && b[0] == 68 || size < 3 {
				return true
			}
		}
		b = b[b[1]:]
	}
	return false
}

// llcOf returns the frame from its LLC header on, or nil if it has none.
func llcOf(frame []byte) []byte {
	b := frame[12:]
	for len(b) >= 4 && (binary.BigEndian.Uint16(b) == 0x8100 || binary.BigEndian.Uint16(b) == 0x88a8) {
		b = b[4:]
	}
	if len(b) < 5 || binary.BigEndian.Uint16(b) >= 0x600 {
		return nil
	}
	return b[2:]
}

// found describes a decoded frame.
func found(p *packet.Parsed) string {
	kind := [...]string{packet.NonIP: "other", packet.ARP: "arp", packet.IPv4: "ip", packet.IPv6: "ipv6"}[p.Kind]
	var ids []string
	vlans := p.VLANs()
	for _, vlan := range vlans[:vlans.Len()] {
		ids = append(ids, strconv.Itoa(int(vlan.VID())))
	}
	if p.Kind != packet.IPv4 && p.Kind != packet.IPv6 {
		return fmt.Sprintf("%s vlans %s", kind, strings.Join(ids, ","))
	}
	return fmt.Sprintf("%s vlans %s from %s, source route %v", kind, strings.Join(ids, ","), p.Src, p.SourceRoute)
}

// dissect returns tshark's results in the format of found.
func dissect(t *testing.T, frames [][]byte) (all []string) {
	var capture bytes.Buffer
	w := pcapgo.NewWriter(&capture)
	must(t, w.WriteFileHeader(1<<16, layers.LinkTypeEthernet))
	for _, f := range frames {
		must(t, w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(f), Length: len(f)}, f))
	}
	args := []string{"-n", "-r", "-", "-T", "fields", "-E", "separator=|"}
	for _, field := range dissectedFields {
		args = append(args, "-e", field)
	}
	c := exec.Command("tshark", args...)
	var out, failure bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = &capture, &out, &failure
	if err := c.Run(); err != nil {
		t.Fatalf("tshark: %v: %s", err, &failure)
	}
	for line := range strings.Lines(out.String()) {
		values := map[string][]string{}
		for i, value := range strings.Split(strings.TrimSuffix(line, "\n"), "|") {
			if value != "" {
				values[dissectedFields[i]] = strings.Split(value, ",")
			}
		}
		all = append(all, dissected(values))
	}
	if len(all) != len(frames) {
		t.Fatalf("tshark dissected %d of %d frames", len(all), len(frames))
	}
	return all
}

var dissectedFields = []string{"frame.protocols", "vlan.id", "ieee8021ad.id", "ieee8021ad.svid", "ieee8021ad.cvid",
	"ip.src", "ipv6.src", "ip.opt.type", "ipv6.routing.segleft"}

// dissected converts the values of tshark's fields for a frame to the format of found.
func dissected(values map[string][]string) string {
	var ids []string
	take := func(field string) {
		if len(values[field]) == 0 {
			return
		}
		if id := values[field][0]; id != "0" {
			ids = append(ids, id)
		}
		values[field] = values[field][1:]
	}
	for _, layer := range strings.Split(values["frame.protocols"][0], ":") {
		switch layer {
		case "vlan":
			take("vlan.id")
		case "ieee8021ad": // one layer for two tags if another service tag follows
			take("ieee8021ad.id")
			take("ieee8021ad.svid")
			take("ieee8021ad.cvid")
		case "eth", "ethertype", "llc":
		case "ip":
			routed := slices.ContainsFunc(values["ip.opt.type"], func(option string) bool { return option == "131" || option == "137" })
			return fmt.Sprintf("ip vlans %s from %s, source route %v", strings.Join(ids, ","), strings.Join(values["ip.src"], ","), routed)
		case "ipv6":
			routed := slices.ContainsFunc(values["ipv6.routing.segleft"], func(left string) bool { return left != "0" })
			return fmt.Sprintf("ipv6 vlans %s from %s, source route %v", strings.Join(ids, ","), strings.Join(values["ipv6.src"], ","), routed)
		case "arp":
			return fmt.Sprintf("arp vlans %s", strings.Join(ids, ","))
		default:
			return fmt.Sprintf("other vlans %s", strings.Join(ids, ","))
		}
	}
	return fmt.Sprintf("other vlans %s", strings.Join(ids, ","))
}

// randomFrame returns a valid frame, or one with an error in its link layer or its headers.
func randomFrame(r *rand.Rand) []byte {
	f := families[r.IntN(2)]
	d := packettest.UDP(f.src, f.dst, packettest.Body(r.IntN(64)))
	d.ID = r.Uint32N(1 << 16)
	d.Tags = randomTags(r, r.IntN(4)%3)
	if f.ipv6 {
		randomChain(r, &d)
	} else {
		d.Options = randomOptions(r)
	}
	contents, etherType := d.Frame()[14+4*len(d.Tags):], uint16(0x86dd)
	if !f.ipv6 {
		etherType = 0x0800
	}
	switch r.IntN(8) {
	case 0:
		contents, etherType = packettest.Body(46), []uint16{0x0806, 0x88cc, 0x8137, 0x8847, 0x0005}[r.IntN(5)]
	case 1:
		contents = contents[:r.IntN(len(contents))]
	}
	if r.IntN(3) > 0 {
		return d.Ethernet(etherType, contents)
	}
	contents = append(randomLLC(r, etherType), contents...)
	length := len(contents)
	switch r.IntN(8) {
	case 0:
		length = r.IntN(0x600)
	case 1:
		contents = append(contents, make([]byte, r.IntN(20))...) // padding
	}
	return d.Ethernet(uint16(length), contents)
}

func randomTags(r *rand.Rand, n int) (tags []packet.Tag) {
	for range n {
		tag := packet.Tag{TPID: []uint16{0x8100, 0x88a8}[r.IntN(2)], TCI: uint16(r.Uint32())}
		if r.IntN(2) == 0 {
			tag.TCI &= 0xf000
		}
		tags = append(tags, tag)
	}
	return tags
}

// randomLLC returns a random LLC header, with SNAP in most cases.
func randomLLC(r *rand.Rand, etherType uint16) []byte {
	saps := [][]byte{{0xaa, 0xaa}, {0xaa, 0xaa}, {0xaa, 0xaa}, {0xaa, 0xab}, {0x06, 0x06}, {0x42, 0x42}, {0xe0, 0xe0}, {0xff, 0xff}}
	b := slices.Clone(saps[r.IntN(len(saps))])
	control := []byte{3, 3, 3, 3, 3, 0x13, 0xaf, 0}[r.IntN(8)]
	if b = append(b, control); control == 0 {
		b = append(b, 0)
	}
	if b[0] != 0xaa {
		return b
	}
	b = append(b, [][]byte{{0, 0, 0}, {0, 0, 0}, {0, 0, 0xf8}, {0, 0, 0x0c}}[r.IntN(4)]...)
	if r.IntN(4) == 0 {
		tag := randomTags(r, 1)[0]
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, tag.TPID), tag.TCI)
	}
	return binary.BigEndian.AppendUint16(b, etherType)
}

// randomOptions returns IPv4 options, some of them malformed.
func randomOptions(r *rand.Rand) (options []byte) {
	for range r.IntN(4) {
		size := []int{3, 4, 7, 8, 11}[r.IntN(5)]
		if len(options)+size > 36 {
			break
		}
		option := make([]byte, size)
		option[0], option[1], option[2] = []byte{7, 7, 68, 131, 137, 148}[r.IntN(6)], byte(size), 4
		if r.IntN(12) == 0 {
			option[1] = byte(r.IntN(40))
		}
		options = append(options, option...)
		if r.IntN(3) == 0 {
			options = append(options, byte(r.IntN(2))) // no operation, or end of options
		}
	}
	for len(options)%4 != 0 {
		options = append(options, byte(r.IntN(2)))
	}
	return options
}

// randomChain adds extension headers to an IPv6 datagram.
func randomChain(r *rand.Rand, d *packettest.Datagram) {
	types := []uint8{43, 43, 60}
	for range r.IntN(4) {
		header := []byte{d.Protocol, 0, 1, 4, 0, 0, 0, 0} // PadN
		if len(d.Before) > 0 {
			header[0] = d.FirstBefore
		}
		if d.FirstBefore = types[r.IntN(3)]; d.FirstBefore == 43 {
			left := byte(r.IntN(3) & r.IntN(3))
			header = append([]byte{header[0], 2, []byte{0, 2, 253}[r.IntN(3)], left, 0, 0, 0, 0}, d.Dst.AsSlice()...)
		}
		d.Before = append(header, d.Before...)
	}
}
