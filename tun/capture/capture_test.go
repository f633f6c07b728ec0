package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// frame returns the i-th frame of the tests.
func frame(i int) Frame {
	return Frame{
		Data:   bytes.Repeat([]byte{byte(i)}, 60+i),
		Length: 60 + i,
		Time:   time.Unix(1_700_000_000+int64(i), 123_456_789).UTC(),
	}
}

// pcapFile returns a pcap made without the writer, so that the tests do not compare the reader
// with the writer only.
func pcapFile(order binary.AppendByteOrder, magic, linkType uint32, frames ...Frame) []byte {
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

// section returns the beginning of a pcapng: a section header, and interfaces with link types.
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

// described describes an Ethernet interface with an option.
func described(code uint16, value ...byte) []byte {
	return block(blockInterface, append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, option(code, value...)...))
}

func option(code uint16, value ...byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return append(append(b, value...), make([]byte, -len(value)&3)...)
}

// flagged returns an enhanced packet block with flags.
func flagged(f Frame, flags ...byte) []byte {
	b := enhanced(f)
	body := b[blockHead : len(b)-blockTail]
	return block(blockEnhanced, append(slices.Clone(body), option(optionPacketFlags, append(flags, make([]byte, 4-len(flags))...)...)...))
}

// obsolete returns a packet block.
func obsolete(f Frame) []byte {
	b := enhanced(f)
	return block(blockPacket, b[blockHead:len(b)-blockTail])
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
		direction := []string{Unknown: "", Inbound: ", inbound", Outbound: ", outbound"}[f.Direction]
		frames = append(frames, fmt.Sprintf("%d: %d of %d bytes, %s%s", f.Interface, len(f.Data), f.Length, f.Time.Format("05.000000000"), direction))
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
	z.Write(pcapFile(binary.LittleEndian, magicMicroseconds, 1, frame(0), frame(1)))
	z.Close()
	for name, c := range map[string]struct {
		data   []byte
		digits string // below the microsecond
		finer  bool
	}{
		"little-endian microseconds": {pcapFile(binary.LittleEndian, magicMicroseconds, 1, frame(0), frame(1)), "000", false},
		"big-endian microseconds":    {pcapFile(binary.BigEndian, magicMicroseconds, 1, frame(0), frame(1)), "000", false},
		"little-endian nanoseconds":  {pcapFile(binary.LittleEndian, magicNanoseconds, 1, frame(0), frame(1)), nanoseconds, true},
		"big-endian nanoseconds":     {pcapFile(binary.BigEndian, magicNanoseconds, 1, frame(0), frame(1)), nanoseconds, true},
		"with FCS length":            {pcapFile(binary.LittleEndian, magicMicroseconds, 4<<28|1, frame(0), frame(1)), "000", false},
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

// TestUnusual reads captures that are rare but valid.
func TestUnusual(t *testing.T) {
	longer := frame(0)
	longer.Length = 50 // less than what was captured
	swapped := frame(1)
	swapped.Length = 90
	old := func(minor byte) []byte {
		b := pcapFile(binary.LittleEndian, magicMicroseconds, 1, swapped)
		b[6] = minor
		if minor < 3 { // the two lengths are swapped
			binary.LittleEndian.PutUint32(b[32:], 90)
			binary.LittleEndian.PutUint32(b[36:], 61)
		}
		return b
	}
	later := section(1)
	later[14] = 2 // version 1.2
	const plain = "0: 60 of 60 bytes, 20.123456000"
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"captured length over length": {pcapFile(binary.LittleEndian, magicMicroseconds, 1, longer), plain},
		"version 2.0":                 {old(0), "0: 61 of 90 bytes, 21.123456000"},
		"version 2.1":                 {old(1), "0: 61 of 90 bytes, 21.123456000"},
		"version 2.3":                 {old(3), "0: 61 of 90 bytes, 21.123456000"},
		"pcap with an FCS":            {pcapFile(binary.LittleEndian, magicMicroseconds, 2<<28|fcsPresent|1, frame(0)), "0: 56 of 56 bytes, 20.123456000"},
		"pcapng 1.2":                  {append(later, enhanced(frame(0))...), plain},
		"obsolete block":              {append(section(1), obsolete(frame(0))...), plain},
		"FCS in bits":                 {slices.Concat(section(), described(optionFCSLength, 32), enhanced(frame(0))), "0: 56 of 56 bytes, 20.123456000"},
		"FCS in bytes":                {slices.Concat(section(), described(optionFCSLength, 4), enhanced(frame(0))), "0: 56 of 56 bytes, 20.123456000"},
		"FCS of one frame":            {append(section(1), flagged(frame(0), 4<<5)...), "0: 56 of 56 bytes, 20.123456000"},
		"FCS that was not captured":   {slices.Concat(section(), described(optionFCSLength, 32), cutBy(frame(0), 3)), "0: 56 of 56 bytes, 20.123456000"},
		"more than the FCS missing":   {slices.Concat(section(), described(optionFCSLength, 32), cutBy(frame(0), 5)), "0: 55 of 56 bytes, 20.123456000"},
		"inbound":                     {append(section(1), flagged(frame(0), 1)...), plain + ", inbound"},
		"outbound":                    {append(section(1), flagged(frame(0), 2)...), plain + ", outbound"},
		"binary resolution":           {slices.Concat(section(), described(optionResolution, 0x80|20), enhanced(at5())), "0: 60 of 60 bytes, 05.500000000"},
		"offset":                      {slices.Concat(section(), described(optionTimeOffset, 1, 0, 0, 0, 0, 0, 0, 0), enhanced(frame(0))), "0: 60 of 60 bytes, 21.123456000"},
	} {
		_, frames, err := read(c.data)
		if err != nil || len(frames) != 1 || frames[0] != c.want {
			t.Errorf("%s: %q, %v; want %s", name, frames, err, c.want)
		}
	}
}

// cutBy returns the block of a frame from which the snap length cut n bytes.
func cutBy(f Frame, n int) []byte {
	f.Data = f.Data[:len(f.Data)-n]
	return enhanced(f)
}

// at5 returns a frame whose time in units of 2^-20 s is 5.5 s.
func at5() Frame {
	f := frame(0)
	f.Time = time.UnixMicro(11 << 19)
	return f
}

// TestInterfaces reads some interfaces of a pcapng with two sections. An interface that it does not
// read is not Ethernet.
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
		"0: 63 of 63 bytes, 23.123456000", "0: 64 of 64 bytes, 23.123456000", // the time of the previous frame
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
	good := pcapFile(binary.LittleEndian, magicMicroseconds, 1, frame(0), frame(1))
	long := frame(1)
	long.Data = make([]byte, maxFrame+1)
	long.Length = len(long.Data)
	late := frame(1)
	late.Time = time.Unix(1<<34, 0)
	newer := bytes.Clone(good)
	newer[6] = 5
	other := section(1)
	other[14] = 1
	tail := append(section(1), enhanced(frame(0))...)
	tail[len(tail)-4]++
	goodNG := append(section(1), append(enhanced(frame(0)), enhanced(frame(1))...)...)
	for name, c := range map[string]struct {
		data   []byte
		frames int
		want   string
	}{
		"empty":            {nil, 0, "the file is empty"},
		"short":            {good[:3], 0, "neither pcap nor pcapng"},
		"text":             {[]byte("[inside]\n"), 0, "neither pcap nor pcapng: it starts with 0x5b696e73"},
		"header":           {good[:20], 0, "the capture is truncated before the first frame"},
		"record header":    {good[:len(good)-61-3], 1, "the capture is truncated after frame 1"},
		"behind a header":  {good[:len(good)-61], 1, "the capture is truncated after frame 1"},
		"in a frame":       {good[:len(good)-3], 1, "the capture is truncated after frame 1"},
		"link type":        {pcapFile(binary.BigEndian, magicMicroseconds, 276), 0, "link type LINUX_SLL2 (276): want Ethernet"},
		"other link type":  {pcapFile(binary.BigEndian, magicMicroseconds, 147), 0, "link type 147: want Ethernet"},
		"too long":         {pcapFile(binary.BigEndian, magicMicroseconds, 1, frame(0), long), 1, "the capture is broken: a frame of 262145 bytes; at most 262144 are possible, after frame 1"},
		"pcapng header":    {goodNG[:20], 0, "the capture is truncated before the first frame"},
		"pcapng in a time": {append(section(1), enhanced(late)...), 0, "unsupported: a frame has a time of 17179869184 seconds since 1970; want 0 to 9223372035, before the first frame"},
		"pcap 2.5":         {newer, 0, "unsupported: a pcap of version 2.5; want 2.0 to 2.4, before the first frame"},
		"pcapng 1.1":       {other, 0, "unsupported: a pcapng of version 1.1; want 1.0 or 1.2, before the first frame"},
		"no interface":     {append(section(1), enhanced(on(1, frame(0)))...), 0, "the capture is broken: a frame of interface 1, but the number of described interfaces is 1, before the first frame"},
		"block end":        {tail, 0, "the capture is broken: a block begins with a length of 92 bytes and ends with one of 93, before the first frame"},
		"odd block":        {append(section(1), 6, 0, 0, 0, 13, 0, 0, 0), 0, "the capture is broken: a block of length 13; want a multiple of 4 from 12 to 16777216, before the first frame"},
		"resolution":       {append(section(), described(optionResolution, 20)...), 0, "unsupported: a time resolution of 0x14, before the first frame"},
		"pcapng frame":     {goodNG[:len(goodNG)-1], 1, "the capture is truncated after frame 1"},
		"pcapng link type": {append(section(101), simple(make([]byte, 20))...), 0, "interface 0: link type RAW (101): want Ethernet"},
	} {
		_, frames, err := read(c.data)
		if len(frames) != c.frames || err == nil || err.Error() != c.want {
			t.Errorf("%s: %d frames, %v; want %d, %s", name, len(frames), err, c.frames, c.want)
		}
	}
	if _, frames, err := read(pcapFile(binary.LittleEndian, magicMicroseconds, 1)); len(frames) != 0 || err != nil {
		t.Errorf("no frames: %q, %v", frames, err)
	}
}

// TestWritten reads what the writers write.
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
			t.Errorf("%s: wrong about the comment", name)
		}
	}
}

// fullDevice is a writer that fails after a number of bytes.
type fullDevice struct{ room int }

var errFull = errors.New("no space left")

func (f *fullDevice) Write(b []byte) (int, error) {
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
		w, err := begin(&fullDevice{room: bufferSize})
		for i := 0; err == nil && i < 10000; i++ {
			err = w.Write(frame(0), "why")
		}
		if err != errFull {
			t.Errorf("%v", err)
		}
	}
}
