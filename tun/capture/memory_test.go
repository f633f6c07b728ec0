package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"runtime"
	"slices"
	"testing"
)

// TestBoundedMemory reads captures with many interfaces, long blocks and many options.
func TestBoundedMemory(t *testing.T) {
	interfaces := bytes.Repeat(described(optionResolution, 9), 5_000_000/10)
	comments := bytes.Repeat(option(1, make([]byte, 60)...), 100_000)
	frame := enhanced(frame(0))
	commented := block(blockEnhanced, append(slices.Clone(frame[blockHead:len(frame)-blockTail]), comments...))
	for name, c := range map[string]struct {
		parts [][]byte
		want  string // the error
	}{
		"interfaces": {[][]byte{section(), interfaces}, "unsupported: more than 65536 interfaces, before the first frame"},
		"sections":   {[][]byte{bytes.Repeat(section(1, 1, 1), 100_000)}, "EOF"},
		"comments":   {[][]byte{section(1), commented, commented, commented}, "EOF"},
		"names":      {[][]byte{section(1), bytes.Repeat(block(4, make([]byte, 1<<20)), 50)}, "EOF"},
		"secrets":    {[][]byte{section(1), bytes.Repeat(block(10, make([]byte, 1<<20)), 50)}, "EOF"},
	} {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		for _, part := range c.parts {
			z.Write(part)
		}
		z.Close()
		var err error
		used := allocated(func() {
			var r *Reader
			if r, err = NewReader(bytes.NewReader(packed.Bytes())); err == nil {
				for err == nil {
					_, err = r.Read()
				}
			}
		})
		if err == nil || err.Error() != c.want || used > maxMemory {
			t.Errorf("%s: %d bytes of memory, %v; want %s", name, used, err, c.want)
		}
	}
}

// maxMemory is the maximum number of bytes that reading a capture may allocate: for the buffers,
// gzip, the longest block, and the interfaces of a section.
const maxMemory = 4*bufferSize + 2*maxBlock + 10*maxInterfaces*32

// allocated returns the number of bytes that f allocates, including those that are freed.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzReader reads arbitrary bytes. Reading must end, with bounded memory, and the writer must
// accept the frames.
func FuzzReader(f *testing.F) {
	f.Add(pcapFile(binary.LittleEndian, magicMicroseconds, 1, frame(0), frame(1)))
	f.Add(pcapFile(binary.BigEndian, magicNanoseconds, 1, frame(0)))
	f.Add(append(section(1, 113), append(enhanced(frame(0)), simple(make([]byte, 30))...)...))
	f.Add(slices.Concat(section(), described(optionFCSLength, 32), flagged(frame(0), 1), obsolete(frame(1))))
	for _, data := range testCaptures(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if used := allocated(func() { _, _ = readAll(data) }); used > maxMemory+20*uint64(len(data)) {
			t.Errorf("%d bytes of memory", used)
		}
		r, err := NewReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		w, err := NewPcap(io.Discard, true)
		if err != nil {
			t.Fatal(err)
		}
		for range len(data) + 1 {
			frame, err := r.Read()
			if err != nil {
				return
			}
			if err := w.Write(frame); err != nil {
				t.Fatalf("%+v: %v", frame, err)
			}
		}
		t.Fatal("more frames than bytes")
	})
}

// TestReadAllocates checks that Read does not allocate.
func TestReadAllocates(t *testing.T) {
	for name, data := range map[string][]byte{
		"pcap":   pcapFile(binary.LittleEndian, magicMicroseconds, 1, slices.Repeat([]Frame{frame(1)}, 200)...),
		"pcapng": append(section(1), bytes.Repeat(flagged(frame(1), 1), 200)...),
	} {
		r, err := NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() {
			if _, err := r.Read(); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations per frame", name, n)
		}
	}
}
