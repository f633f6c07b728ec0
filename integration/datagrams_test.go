package integration_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// TestFragmentsUnchanged sends random datagrams in random fragments. The kernel can make some of
// the fragments itself from one large packet (package tun/ufo); others are slightly different, so that
// the box must write each fragment. When the last fragment of a datagram has arrived, all its
// fragments must leave, unchanged and in the order of their offsets. The counters must count each
// fragment.
func TestFragmentsUnchanged(t *testing.T) {
	for _, tt := range []struct {
		name      string
		config    string
		off       []uint32 // offloads of the NICs to turn off, as ethtool commands
		bridges   bool     // the NICs are bridges with the lab's NICs as ports
		validates bool     // fragments leave when they arrive
		inPieces  bool     // the box writes each fragment separately
	}{
		{name: "by a redirect", config: oneQueue + acceptAll},
		{name: "by a bridge", config: oneQueue + bridgeOutside + acceptAll},
		{name: "by a NIC without offloads", config: oneQueue + acceptAll, off: []uint32{unix.ETHTOOL_SGSO, unix.ETHTOOL_STXCSUM, unix.ETHTOOL_SSG}},
		{name: "by NICs that are bridges", config: bridgeNICs + acceptAll, bridges: true, inPieces: true},
		{name: "with one MTU below the other", config: oneQueue + "mtu = 1400\n" + acceptAll},
		{name: "validated", config: oneQueue + acceptAll + "[fragments]\nmode = \"validate\"\n", validates: true},
		{name: "without offload", config: oneQueue + "offload = false\n" + acceptAll, inPieces: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork(t)
			mute(t, n)
			w := &wires{}
			for side, h := range n.Hosts {
				w.sockets[side] = tap(t, h)
				must(t, n.Middle.Do(func() error { return turnOff(nics[side], tt.off) }))
				if tt.bridges {
					must(t, n.Middle.Do(func() error { return addBridge(nics[side]) }))
				}
			}
			w.box = startWith(t, n, nil, tt.config)
			for from := range verdict.Side(verdict.Sides) {
				s := newFragmenter(uint64(from)+1, w.Hosts[from], w.Hosts[from.Other()])
				s.inOrder = tt.validates
				for range 60 {
					s.send(t, w, from)
				}
				s.count(t, w, from, tt.inPieces)
			}
		})
	}
}

// oneQueue begins configurations with one queue and without the fast path, in which all frames keep
// their order, even between flows.
var oneQueue = "fast_path = \"off\"\n" + strings.ReplaceAll(strings.TrimPrefix(devices, pathKey), "nic =", "queues = 1\nnic =")

// nics holds the names of the NICs to which the TAPs are joined.
var nics = [verdict.Sides]string{verdict.Inside: lab.InsideNIC, verdict.Outside: lab.OutsideNIC}

// bridgeNICs begins configurations of a box whose NICs are bridges.
var bridgeNICs = strings.NewReplacer(lab.InsideNIC, bridgePrefix+lab.InsideNIC, lab.OutsideNIC, bridgePrefix+lab.OutsideNIC).Replace(oneQueue)

const bridgePrefix = "br-"

// addBridge makes a bridge with a NIC as its only port.
func addBridge(nic string) error {
	port, err := netlink.LinkByName(nic)
	if err != nil {
		return err
	}
	attributes, no := netlink.NewLinkAttrs(), false
	attributes.Name = bridgePrefix + nic
	bridge := &netlink.Bridge{LinkAttrs: attributes, MulticastSnooping: &no}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	return errors.Join(
		noNetfilter(), // netfilter would remove trailers
		lab.Sysctl(map[string]string{"net/ipv6/conf/" + bridgePrefix + nic + "/disable_ipv6": "1"}),
		netlink.LinkSetMaster(port, bridge),
		netlink.LinkSetUp(bridge),
	)
}

// turnOff turns off offloads of a NIC. commands are ethtool commands that take a struct ethtool_value.
func turnOff(nic string, commands []uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, command := range commands {
		value := [2]uint32{command, 0}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:], nic)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("turn offload %#x of %q off: %w", command, nic, errno)
		}
	}
	return nil
}

// fragmenter sends random datagrams from one host to another.
type fragmenter struct {
	r        *rand.Rand
	from, to *lab.Host
	inOrder  bool   // send fragments in the order of their offsets; each leaves when it arrives
	id       uint32 // last identification
	frames   int    // sent
	bytes    int    // sent
}

func newFragmenter(seed uint64, from, to *lab.Host) *fragmenter {
	return &fragmenter{r: rand.New(rand.NewPCG(seed, 20)), from: from, to: to}
}

// send sends up to 20 datagrams with interleaved fragments, and checks the frames that arrive.
func (s *fragmenter) send(t *testing.T, w *wires, from verdict.Side) {
	t.Helper()
	var waiting, arrived [][][]byte // by datagram: the fragments not sent yet, and all in order of offset
	for range 1 + s.r.IntN(20) {
		fragments := s.datagram()
		arrived = append(arrived, slices.Clone(fragments))
		if !s.inOrder && s.r.IntN(3) == 0 {
			s.r.Shuffle(len(fragments), func(i, j int) { fragments[i], fragments[j] = fragments[j], fragments[i] })
		}
		waiting = append(waiting, fragments)
	}
	var want [][]byte
	left := len(waiting)
	for left > 0 {
		i := s.r.IntN(min(len(waiting), 3)) // send at most three datagrams at once
		n := len(waiting[i])
		if s.r.IntN(3) == 0 {
			n = 1 + s.r.IntN(n)
		}
		for _, f := range waiting[i][:n] {
			must(t, w.sockets[from].Send(f))
			s.frames++
			s.bytes += len(f)
			if s.inOrder {
				want = append(want, f)
			}
		}
		if waiting[i] = waiting[i][n:]; len(waiting[i]) == 0 {
			if !s.inOrder {
				want = append(want, arrived[i]...)
			}
			waiting, arrived = slices.Delete(waiting, i, i+1), slices.Delete(arrived, i, i+1)
			left--
		}
	}
	expectFrames(t, w.sockets[from.Other()], want...)
}

// datagram returns the frames of a random datagram: fragments in the order of their offsets, or one
// whole packet.
func (s *fragmenter) datagram() [][]byte {
	r, f := s.r, families[0]
	if r.IntN(4) == 0 {
		f = families[1]
	}
	body := make([]byte, 1+r.IntN([]int{100, 3000, 9000, 20000}[r.IntN(4)]))
	if r.IntN(50) == 0 {
		body = make([]byte, 65507)
	}
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	d := packettest.UDP(f.src, f.dst, body)
	s.id++
	d.ID, d.TTL, d.TrafficClass = s.id, uint8(1+r.IntN(255)), uint8(r.IntN(64)<<2)
	d.Tags = [][]packet.Tag{nil, nil, {{TPID: 0x8100, TCI: 10}}, {{TPID: 0x88a8, TCI: 0x6005}, {TPID: 0x8100, TCI: 20}}}[r.IntN(4)]
	switch udp := d.Payload; r.IntN(12) {
	case 0:
		copy(udp[6:], "\x00\x00") // no checksum
	case 1:
		udp[6]++ // wrong checksum
	case 2:
		d.Protocol = 253
	case 3:
		d.DontFragment = true
	case 4:
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)-1))
	}
	fragments := s.cut(d)
	lab.Between(s.from, s.to, fragments...)
	return fragments
}

// cut fragments a datagram. Most datagrams are cut into fragments of one size.
func (s *fragmenter) cut(d packettest.Datagram) (fragments [][]byte) {
	const longest = 1344 // bytes of payload; with all headers and two tags less than the smallest MTU
	r, whole := s.r, d.Fragmentable()
	if len(whole) <= 8 || len(whole) <= longest && r.IntN(2) == 0 {
		return [][]byte{d.Frame()}
	}
	if r.IntN(4) > 0 {
		size := 8 * (1 + r.IntN(min((len(whole)-1)/8, longest/8)))
		size = max(size, (len(whole)/200+7)&^7) // at most about 200 fragments
		fragments = d.Fragments(size)
	} else {
		for at := 0; at < len(whole); {
			end := min(at+8*(1+r.IntN(longest/8)), len(whole))
			if at == 0 {
				end = min(end, (len(whole)-1)&^7) // otherwise it would be a whole packet
			}
			fragments = append(fragments, d.Fragment(at, whole[at:end], end < len(whole)))
			at = end
		}
	}
	switch i := r.IntN(len(fragments)); {
	case r.IntN(12) == 0: // add a trailer
		fragments[i] = append(fragments[i], packettest.Body(1+r.IntN(4))...)
	case r.IntN(12) == 0 && d.Src.Is4(): // another TTL
		network := 14 + 4*len(d.Tags)
		h := fragments[i][network:]
		d.TTL = d.TTL%255 + 1
		fragments[i] = d.Fragment(int(binary.BigEndian.Uint16(h[6:])&0x1fff)*8, h[20:], h[6]&0x20 != 0)
	}
	return fragments
}

// count compares the counters with the number of frames and bytes sent, and checks how many frames
// the box wrote to the TAP.
func (s *fragmenter) count(t *testing.T, w *wires, from verdict.Side, inPieces bool) {
	t.Helper()
	var report struct {
		Sides map[string]struct {
			Received       int `json:"received_frames"`
			ReceivedBytes  int `json:"received_bytes"`
			Forwarded      int `json:"forwarded_frames"`
			ForwardedBytes int `json:"forwarded_bytes"`
			Sent           int `json:"sent_frames"`
			SentBytes      int `json:"sent_bytes"`
		}
	}
	w.awaitCounters(t, from, func(c counters) bool { return c.received == s.frames && c.forwarded == s.frames && c.waiting == 0 })
	must(t, json.Unmarshal([]byte(fetch(t, w.ns, "/api/status")), &report))
	c := report.Sides[from.String()]
	if c.Sent != s.frames || c.ReceivedBytes != s.bytes || c.ForwardedBytes != s.bytes || c.SentBytes != s.bytes {
		t.Errorf("from %v: %+v, but %d frames of %d bytes were sent", from, c, s.frames, s.bytes)
	}
	must(t, w.Middle.Do(func() error {
		link, err := netlink.LinkByName(taps[from.Other()])
		if err != nil {
			return err
		}
		if taken := int(link.Attrs().Statistics.RxPackets); (taken == s.frames) != inPieces {
			t.Errorf("from %v: the box wrote %d frames to the TAP for %d frames; separately: want %v", from, taken, s.frames, inPieces)
		}
		return nil
	}))
}
