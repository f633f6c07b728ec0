package checksum_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	gvisor "gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet/checksum"
)

// TestSum compares Sum with gVisor's checksum at every length and alignment.
func TestSum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 400)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	zeros, ones := make([]byte, 400), make([]byte, 400)
	for i := range ones {
		ones[i] = 0xff
	}
	for _, b := range [][]byte{random, zeros, ones} {
		for from := range 8 {
			for to := from; to <= len(b); to++ {
				for _, initial := range []uint16{0, 1, 0xff00, 0xfffe, 0xffff, uint16(r.Uint32())} {
					got, want := checksum.Sum(b[from:to], initial), gvisor.Checksum(b[from:to], initial)
					if got != want {
						t.Fatalf("%d bytes from %d and %#x: %#x, want %#x", to-from, from, initial, got, want)
					}
				}
			}
		}
	}
}

// FuzzSum does the same with any bytes.
func FuzzSum(f *testing.F) {
	f.Add([]byte{0xff, 0xff}, uint16(0))
	f.Add([]byte{1, 2, 3}, uint16(0xffff))
	f.Fuzz(func(t *testing.T, b []byte, initial uint16) {
		if got, want := checksum.Sum(b, initial), gvisor.Checksum(b, initial); got != want {
			t.Errorf("%x and %#x: %#x, want %#x", b, initial, got, want)
		}
	})
}

func TestPseudoHeader(t *testing.T) {
	for _, tt := range [][2]string{{"192.0.2.1", "203.0.113.77"}, {"2001:db8::1", "2001:db8:ffff::2"}} {
		src, dst := netip.MustParseAddr(tt[0]), netip.MustParseAddr(tt[1])
		for _, length := range []int{0, 8, 1500, 65535} {
			want := header.PseudoHeaderChecksum(header.TCPProtocolNumber,
				tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice()), uint16(length))
			if got := checksum.PseudoHeader(src, dst, uint8(header.TCPProtocolNumber), length); got != want {
				t.Errorf("%v, %v, %d: %#x, want %#x", src, dst, length, got, want)
			}
		}
	}
}

func TestPut(t *testing.T) {
	b := []byte{1, 2, 0xde, 0xad, 5}
	checksum.Put(b, 2, 0x1234)
	if got := checksum.Sum(b, 0x1234); got != checksum.Valid {
		t.Errorf("sum %#x with the checksum in %x", got, b)
	}
}

// BenchmarkSum compares Sum with gVisor's checksum, at the sizes of headers, addresses and
// packets.
func BenchmarkSum(b *testing.B) {
	for _, tt := range []struct {
		name string
		sum  func([]byte, uint16) uint16
	}{{"ours", checksum.Sum}, {"gvisor", gvisor.Checksum}} {
		for _, size := range []struct {
			name  string
			bytes int
		}{{"4", 4}, {"16", 16}, {"20", 20}, {"60", 60}, {"1460", 1460}, {"65000", 65000}} {
			b.Run(size.name+" "+tt.name, func(b *testing.B) {
				data := make([]byte, size.bytes)
				for b.Loop() {
					tt.sum(data, 0)
				}
			})
		}
	}
}
