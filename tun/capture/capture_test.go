package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// frame returns the i-th of the frames that the tests write.
func frame(i int) Frame {
	return Frame{
		Data:   bytes.Repeat([]byte{byte(i)}, 60+i),
		Length: 60 + i,
		Time:   time.Unix(1_700_000_000+int64(i), 123_456_789).UTC(),
	}
}

// pcap writes a pcap by hand, so that the reader is not held against the
// writer alone.
func pcap(order binary.AppendByteOrder, magic, linkType uint32, frames ...Frame) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(b, 2) // version 2.4
	b = order.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...) // time zone, accuracy
	b = order.AppendUint32(b, 65535)
	b = order.AppendUint32(b, linkType)
	for _, f := range frames {
		fraction := uint32(f.Time.Nanosecond())
		if magic == magicMicroseconds {
			fraction /= 1000
		}
		b = order.AppendUint32(b, uint32(f.Time.Unix()))
		b = order.AppendUint32(b, fraction)
		b = order.AppendUint32(b, uint32(len(f.Data)))
		b = order.AppendUint32(b, uint32(f.Length))
		b = append(b, f.Data...)
	}
	return b
}

// block returns a block of a pcapng in little-endian order.
func block(kind uint32, body []byte) []byte {
	size := uint32(12 + (len(body)+3)&^3)
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint32(b, size)
	b = append(b, body...)
	b = append(b, make([]byte, -len(body)&3)...)
	return binary.LittleEndian.AppendUint32(b, size)
}

// section begins a pcapng with interfaces of these link types.
func section(linkTypes ...uint16) []byte {
	header := binary.LittleEndian.AppendUint32(nil, 0x1a2b3c4d)
	header = append(header, 1, 0, 0, 0)
	header = binary.LittleEndian.AppendUint64(header, ^uint64(0))
	b := block(magicPcapng, header)
	for _, t := range linkTypes {
		b = append(b, block(1, append(binary.LittleEndian.AppendUint16(nil, t), 0, 0, 0, 0, 0, 0))...)
	}
	return b
}

// simple returns a simple packet block: on interface 0, without a time.
func simple(data []byte) []byte {
	return block(3, append(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), data...))
}

// enhanced returns an enhanced packet block, with a time in microseconds.
func enhanced(f Frame) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(f.Interface))
	at := uint64(f.Time.UnixMicro())
	b = binary.LittleEndian.AppendUint32(b, uint32(at>>32))
	b = binary.LittleEndian.AppendUint32(b, uint32(at))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Data)))
	b = binary.LittleEndian.AppendUint32(b, uint32(f.Length))
	return block(6, append(b, f.Data...))
}

func on(i int, f Frame) Frame {
	f.Interface = i
	return f
}

// read returns all frames, in words, and the error that ended them.
func read(data []byte, interfaces ...int) (*Reader, []string, error) {
	r, err := NewReader(bytes.NewReader(data), interfaces...)
	if err != nil {
		return nil, nil, err
	}
	var frames []string
	for {
		f, err := r.Read()
		if errors.Is(err, io.EOF) {
			return r, frames, nil
		}
		if err != nil {
			return r, frames, err
		}
		frames = append(frames, fmt.Sprintf("%d: %d of %d bytes, %s", f.Interface, len(f.Data), f.Length, f.Time.Format("05.000000000")))
	}
}

func TestFormats(t *testing.T) {
	const (
		first       = "0: 60 of 60 bytes, 20.123456"
		second      = "0: 61 of 61 bytes, 21.123456"
		nanoseconds = "789"
	)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(pcap(binary.LittleEndian, magicMicroseconds, 1, frame(0), frame(1)))
	z.Close()
	for name, c := range map[string]struct {
		data   []byte
		digits string // below the microsecond
		finer  bool
	}{
		"little-endian microseconds": {pcap(binary.LittleEndian, magicMicroseconds, 1, frame(0), frame(1)), "000", false},
		"big-endian microseconds":    {pcap(binary.BigEndian, magicMicroseconds, 1, frame(0), frame(1)), "000", false},
		"little-endian nanoseconds":  {pcap(binary.LittleEndian, magicNanoseconds, 1, frame(0), frame(1)), nanoseconds, true},
		"big-endian nanoseconds":     {pcap(binary.BigEndian, magicNanoseconds, 1, frame(0), frame(1)), nanoseconds, true},
		"with FCS length":            {pcap(binary.LittleEndian, magicMicroseconds, 4<<28|1, frame(0), frame(1)), "000", false},
		"gzip":                       {packed.Bytes(), "000", false},
		"pcapng":                     {append(section(1), append(enhanced(frame(0)), enhanced(frame(1))...)...), "000", true},
	} {
		r, frames, err := read(c.data)
		if err != nil || len(frames) != 2 || frames[0] != first+c.digits || frames[1] != second+c.digits {
			t.Errorf("%s: %q, %v", name, frames, err)
			continue
		}
		if r.Nanoseconds() != c.finer {
			t.Errorf("%s: nanoseconds %v", name, r.Nanoseconds())
		}
	}
}

// TestInterfaces reads some of a pcapng's interfaces, of which another is not
// Ethernet, over two sections.
func TestInterfaces(t *testing.T) {
	data := section(1, 113, 1)
	for i := range 3 {
		data = append(data, enhanced(on(i, frame(i)))...)
	}
	data = append(data, section(1)...)
	data = append(data, enhanced(frame(3))...)
	data = append(data, simple(make([]byte, 64))...)

	r, frames, err := read(data, 0, 2)
	want := []string{
		"0: 60 of 60 bytes, 20.123456000", "2: 62 of 62 bytes, 22.123456000",
		"0: 63 of 63 bytes, 23.123456000", "0: 64 of 64 bytes, 23.123456000", // the time of the one before
	}
	if err != nil || strings.Join(frames, "\n") != strings.Join(want, "\n") {
		t.Fatalf("%q, %v", frames, err)
	}
	if r.Skipped() != 1 || r.Interfaces() != 3 {
		t.Errorf("%d skipped, %d interfaces", r.Skipped(), r.Interfaces())
	}
	if _, frames, err := read(data); !errors.Is(err, ErrLinkType) || len(frames) != 1 ||
		err.Error() != "interface 1: link type LINUX_SLL (113): want Ethernet" {
		t.Errorf("%q, %v", frames, err)
	}
}

func TestBadInput(t *testing.T) {
	good := pcap(binary.LittleEndian, magicMicroseconds, 1, frame(0), frame(1))
	long := frame(1)
	long.Data = make([]byte, snapLength+1)
	long.Length = len(long.Data)
	late := frame(1)
	late.Time = time.Unix(1<<33, 0)
	goodNG := append(section(1), append(enhanced(frame(0)), enhanced(frame(1))...)...)
	for name, c := range map[string]struct {
		data   []byte
		frames int
		want   string
	}{
		"empty":            {nil, 0, "the file is empty"},
		"short":            {good[:3], 0, "neither pcap nor pcapng"},
		"text":             {[]byte("[inside]\n"), 0, "neither pcap nor pcapng: it begins with 0x5b696e73"},
		"header":           {good[:20], 0, "the capture is truncated after 0 frames"},
		"record header":    {good[:len(good)-61-3], 1, "the capture is truncated after 1 frames"},
		"behind a header":  {good[:len(good)-61], 1, "the capture is truncated after 1 frames"},
		"in a frame":       {good[:len(good)-3], 1, "the capture is truncated after 1 frames"},
		"link type":        {pcap(binary.BigEndian, magicMicroseconds, 276), 0, "link type LINUX_SLL2 (276): want Ethernet"},
		"other link type":  {pcap(binary.BigEndian, magicMicroseconds, 147), 0, "link type 147: want Ethernet"},
		"too long":         {pcap(binary.BigEndian, magicMicroseconds, 1, frame(0), long), 1, "the capture is broken: capture length exceeds snap length: 262145 > 262144"},
		"pcapng header":    {goodNG[:20], 0, "the capture is truncated after 0 frames"},
		"pcapng in a time": {append(section(1), enhanced(late)...), 0, "the capture is broken: frame 1 has a time of 8589934592 seconds"},
		"pcapng frame":     {goodNG[:len(goodNG)-1], 1, "the capture is truncated after 1 frames"},
		"pcapng link type": {append(section(101), simple(make([]byte, 20))...), 0, "interface 0: link type RAW (101): want Ethernet"},
	} {
		_, frames, err := read(c.data)
		if len(frames) != c.frames || err == nil || err.Error() != c.want {
			t.Errorf("%s: %d frames, %v; want %d, %s", name, len(frames), err, c.frames, c.want)
		}
	}
	if _, frames, err := read(pcap(binary.LittleEndian, magicMicroseconds, 1)); len(frames) != 0 || err != nil {
		t.Errorf("no frames: %q, %v", frames, err)
	}
}

// TestWritten reads what the writers wrote.
func TestWritten(t *testing.T) {
	for name, c := range map[string]struct {
		begin func(w io.Writer) (*Writer, error)
		want  string
	}{
		"microseconds": {func(w io.Writer) (*Writer, error) { return NewPcap(w, false) }, "0: 60 of 90 bytes, 20.123456000"},
		"nanoseconds":  {func(w io.Writer) (*Writer, error) { return NewPcap(w, true) }, "0: 60 of 90 bytes, 20.123456789"},
		"pcapng":       {func(w io.Writer) (*Writer, error) { return NewPcapng(w, "test", "a", "b") }, "1: 60 of 90 bytes, 20.123456789"},
	} {
		var file bytes.Buffer
		w, err := c.begin(&file)
		if err != nil {
			t.Fatal(err)
		}
		f := on(1, frame(0))
		f.Length = 90
		if err := errors.Join(w.Write(f, "why"), w.Flush()); err != nil {
			t.Fatal(err)
		}
		if _, frames, err := read(file.Bytes()); err != nil || len(frames) != 1 || frames[0] != c.want {
			t.Errorf("%s: %q, %v", name, frames, err)
		}
		if strings.Contains(file.String(), "why") != (name == "pcapng") {
			t.Errorf("%s: the comment", name)
		}
	}
}

// full takes some bytes and no more.
type full struct{ room int }

var errFull = errors.New("no space left")

func (f *full) Write(b []byte) (int, error) {
	if len(b) > f.room {
		return 0, errFull
	}
	f.room -= len(b)
	return len(b), nil
}

func TestWriteFails(t *testing.T) {
	for _, begin := range []func(io.Writer) (*Writer, error){
		func(w io.Writer) (*Writer, error) { return NewPcap(w, true) },
		func(w io.Writer) (*Writer, error) { return NewPcapng(w, "test", "a") },
	} {
		w, err := begin(&full{room: bufferSize})
		for i := 0; err == nil && i < 10000; i++ {
			err = w.Write(frame(0), "why")
		}
		if err != errFull {
			t.Errorf("%v", err)
		}
	}
}

// FuzzReader reads anything: it comes to an end, and what it returns can be
// written again.
func FuzzReader(f *testing.F) {
	f.Add(pcap(binary.LittleEndian, magicMicroseconds, 1, frame(0), frame(1)))
	f.Add(pcap(binary.BigEndian, magicNanoseconds, 1, frame(0)))
	f.Add(append(section(1, 113), append(enhanced(frame(0)), simple(make([]byte, 30))...)...))
	f.Fuzz(func(t *testing.T, data []byte) {
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
