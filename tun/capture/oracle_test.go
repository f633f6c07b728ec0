package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// others are the programs with which the reader is compared. Both read a capture from stdin and
// write its frames to stdout as a pcap with nanoseconds.
var others = [][]string{
	{"tcpdump", "--time-stamp-precision=nano", "-r", "-", "-w", "-"}, // libpcap
	{"editcap", "-F", "nsecpcap", "-", "-"},                          // Wireshark's wiretap
}

// record is the part of a captured frame that is compared.
type record struct {
	seconds, nanoseconds uint32
	captured, length     uint32
	begin                uint32 // the first bytes of the data
}

// TestMutants reads captures with random mistakes. The reader must return the same frames as
// tcpdump or as Wireshark. It may end earlier with an error that says that something is
// unsupported.
func TestMutants(t *testing.T) {
	for _, program := range others {
		if _, err := exec.LookPath(program[0]); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	mutants := 3000
	if testing.Short() {
		mutants = 300
	}
	seeds := oracleSeeds(t)
	var workers sync.WaitGroup
	work := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range work {
				random := rand.New(rand.NewPCG(uint64(i), 7))
				data := slices.Clone(seeds[i%len(seeds)])
				if i >= len(seeds) {
					data = mutate(random, data)
				}
				compareReaders(t, i, data)
			}
		})
	}
	for i := range mutants {
		work <- i
	}
	close(work)
	workers.Wait()
}

// oracleSeeds returns captures without mistakes.
func oracleSeeds(t *testing.T) [][]byte {
	t.Helper()
	seeds := [][]byte{
		pcapFile(binary.LittleEndian, magicMicroseconds, 1, frame(0), frame(1), frame(2), frame(3)),
		pcapFile(binary.BigEndian, magicNanoseconds, 1, frame(0), frame(1), frame(2)),
		slices.Concat(section(1, 1), enhanced(frame(0)), enhanced(on(1, frame(1))), enhanced(frame(2))),
		slices.Concat(section(1), enhanced(frame(0)), simple(make([]byte, 64)), block(5, make([]byte, 12)), block(4, make([]byte, 8)), enhanced(frame(1))),
		slices.Concat(section(1), enhanced(frame(0)), section(1), enhanced(frame(1))),
		slices.Concat(section(), described(optionResolution, 9), enhanced(frame(0)), enhanced(frame(1))),
		slices.Concat(section(), described(optionResolution, 0x80|20), flagged(frame(0), 1), flagged(frame(1), 2)),
		slices.Concat(section(), described(optionTimeOffset, 1, 2, 0, 0, 0, 0, 0, 0), enhanced(frame(0)), obsolete(frame(1))),
	}
	return append(seeds, testCaptures(t)...)
}

// testCaptures returns the captures in testdata.
func testCaptures(t testing.TB) (all [][]byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.pcap*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data)
	}
	return all
}

// mutate makes one to three random changes in a capture.
func mutate(random *rand.Rand, data []byte) []byte {
	for range 1 + random.IntN(3) {
		at := random.IntN(len(data))
		if random.IntN(2) == 0 {
			at &^= 3 // most fields begin at a multiple of 4
		}
		switch random.IntN(8) {
		case 0:
			data[at] ^= 1 << random.IntN(8)
		case 1:
			data[at] = byte(random.IntN(256))
		case 2:
			return data[:at+1]
		case 3:
			data = slices.Delete(data, at, min(len(data), at+4))
		case 4:
			data = slices.Insert(data, at, make([]byte, 1+random.IntN(8))...)
		case 5: // repeat the end
			data = append(data, data[at:]...)
		default:
			numbers := []uint32{0, 1, 4, 12, 28, 60, 61, 64, 65535, 65536, 262144, 262145, 1 << 24, 1<<24 + 4, 1<<31 - 1, 1 << 31, ^uint32(0)}
			n := numbers[random.IntN(len(numbers))]
			if at+4 <= len(data) {
				binary.LittleEndian.PutUint32(data[at:], n)
				if random.IntN(2) == 0 {
					binary.BigEndian.PutUint32(data[at:], n)
				}
			}
		}
		if len(data) == 0 {
			return []byte{0}
		}
	}
	return data
}

func compareReaders(t *testing.T, i int, data []byte) {
	ours, err := readAll(data)
	unsupported := errors.Is(err, ErrUnsupported) || errors.Is(err, ErrLinkType)
	var theirs [2][]record
	for j, program := range others {
		c := exec.Command(program[0], program[1:]...)
		c.Stdin = bytes.NewReader(data)
		out, _ := c.Output() // after an error, the output has the frames before it
		theirs[j] = parsePcap(out)
		if unsupported {
			theirs[j] = theirs[j][:min(len(theirs[j]), len(ours))]
		}
		// Both refuse a file with several link types before its first frame.
		if sameRecords(ours, theirs[j]) || errors.Is(err, ErrLinkType) && len(theirs[j]) == 0 {
			return
		}
	}
	t.Errorf("capture %d: %d frames, %v; %s reads %d, %s %d\n%v\n%v\n%v\n% x",
		i, len(ours), err, others[0][0], len(theirs[0]), others[1][0], len(theirs[1]), ours, theirs[0], theirs[1], data)
}

// readAll returns the frames of a capture, in the form of a pcap.
func readAll(data []byte) (all []record, err error) {
	r, err := NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	for {
		f, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, record{uint32(f.Time.Unix()), uint32(f.Time.Nanosecond()), uint32(len(f.Data)), uint32(f.Length), begin(f.Data)})
	}
}

// parsePcap returns the frames of a pcap that another program wrote.
func parsePcap(b []byte) (all []record) {
	for b = b[min(len(b), 24):]; len(b) >= 16; {
		u := func(i int) uint32 { return binary.NativeEndian.Uint32(b[i:]) }
		r := record{seconds: u(0), nanoseconds: u(4), captured: u(8), length: u(12)}
		b = b[16:]
		data := b[:min(len(b), int(r.captured))]
		b = b[len(data):]
		r.begin = begin(data)
		all = append(all, r)
	}
	return all
}

// sameRecords compares the reader's frames with those of another program, which include a frame
// check sequence.
func sameRecords(a, b []record) bool {
	return slices.EqualFunc(a, b, func(a, b record) bool {
		fcs := max(b.length, b.captured) - max(a.length, a.captured)
		return (fcs == 0 || fcs == ethernetFCS) && b.captured-a.captured <= fcs && a.begin == b.begin && sameTime(a, b)
	})
}

// sameTime compares times. For a frame without a time, the other programs write 0. They convert a
// fraction of more than a second to nanoseconds in 32 bits, which overflow.
func sameTime(a, b record) bool {
	whole := func(r record) time.Duration {
		return time.Duration(r.seconds)*time.Second + time.Duration(r.nanoseconds)
	}
	return (whole(a)-whole(b))%(1<<32) == 0 || whole(a) == 0 || whole(b) == 0
}

// begin returns the first 4 bytes of a frame. They differ between the frames of the tests.
func begin(data []byte) uint32 {
	var b [4]byte
	copy(b[:], data)
	return binary.BigEndian.Uint32(b[:])
}
