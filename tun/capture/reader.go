package capture

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Frame is one captured Ethernet frame, without its frame check sequence.
type Frame struct {
	Data      []byte
	Length    int // on the wire; more than len(Data) if the snap length cut the frame
	Time      time.Time
	Interface int // in a pcapng, starting at 0; 0 in a pcap
	Direction Direction
}

// Direction is the direction in which a frame passed the interface, as seen from the
// machine that captured it.
type Direction uint8

// The directions, with their numbers in epb_flags (draft-ietf-opsawg-pcapng §4.3.1).
const (
	Unknown Direction = iota
	Inbound
	Outbound
)

// Errors about the contents of a capture.
var (
	ErrEmpty       = errors.New("the file is empty")
	ErrFormat      = errors.New("neither pcap nor pcapng")
	ErrTruncated   = errors.New("the capture is truncated")
	ErrBroken      = errors.New("the capture is broken")
	ErrUnsupported = errors.New("unsupported")
	ErrLinkType    = errors.New("want Ethernet")
)

// Limits on the contents of a capture, which bound the memory for it.
const (
	// maxFrame is the longest frame in bytes, as in libpcap (MAXIMUM_SNAPLEN).
	maxFrame = 262144
	// maxBlock is the longest block of a pcapng in bytes, as in libpcap and
	// Wireshark.
	maxBlock = 16 << 20
	// maxInterfaces is the maximum number of interfaces in a section of a pcapng.
	maxInterfaces = 1 << 16
)

// bufferSize is the number of bytes that are read or written at once.
const bufferSize = 256 << 10

// source reads one of the formats. Its errors are [io.EOF] after the last frame and
// [io.ErrUnexpectedEOF] if the file ends inside a record, header or block. Other errors say what
// is wrong.
type source interface {
	// next returns the next frame. It checks the link type only of interfaces that are
	// wanted. For other interfaces it returns a frame without data.
	next(wanted func(iface int) bool) (Frame, error)
	// interfaces returns the number of interfaces described so far.
	interfaces() int
}

// Reader reads the frames of a capture.
type Reader struct {
	source      source
	only        []int                // interfaces to read; nil: all
	isWanted    func(iface int) bool // the method wanted, as a value
	nanoseconds bool

	frames  uint64 // read so far, including those of other interfaces
	skipped uint64 // of other interfaces
	ahead   *Frame // read in advance
}

// NewReader returns a reader of the frames of some interfaces, or of all if none is
// given. It fails if the format is unknown, or if the first interface has another link
// type.
func NewReader(r io.Reader, interfaces ...int) (*Reader, error) {
	buffer, magic, err := open(r)
	if err != nil {
		return nil, err
	}
	n := &Reader{only: interfaces}
	n.isWanted = n.wanted
	switch magic {
	case magicPcapng:
		n.source, n.nanoseconds = newPcapng(buffer), true
		return n, n.readAhead()
	case magicMicroseconds, magicMicrosecondsSwapped, magicNanoseconds, magicNanosecondsSwapped:
		p, err := newPcap(buffer)
		if err != nil {
			return nil, n.explain(err)
		}
		n.source, n.nanoseconds = p, p.unit == time.Nanosecond
		return n, nil
	}
	return nil, fmt.Errorf("%w: it starts with %#08x", ErrFormat, magic)
}

// The first four bytes of a file, in big-endian order (draft-ietf-opsawg-pcap,
// draft-ietf-opsawg-pcapng).
const (
	magicPcapng              = 0x0a0d0d0a
	magicMicroseconds        = 0xa1b2c3d4
	magicMicrosecondsSwapped = 0xd4c3b2a1
	magicNanoseconds         = 0xa1b23c4d
	magicNanosecondsSwapped  = 0x4d3cb2a1
	magicGzip                = 0x1f8b // the first two (RFC 1952)
)

// open returns the decompressed contents of a file, and its magic number.
func open(r io.Reader) (*bufio.Reader, uint32, error) {
	buffer := bufio.NewReaderSize(r, bufferSize)
	magic, err := peek(buffer)
	if err != nil || magic>>16 != magicGzip {
		return buffer, magic, err
	}
	expanded, err := gzip.NewReader(buffer)
	if err != nil {
		return nil, 0, fmt.Errorf("decompress: %w", err)
	}
	buffer = bufio.NewReaderSize(expanded, bufferSize)
	magic, err = peek(buffer)
	return buffer, magic, err
}

func peek(r *bufio.Reader) (uint32, error) {
	b, err := r.Peek(4)
	switch {
	case len(b) == 0 && errors.Is(err, io.EOF):
		return 0, ErrEmpty
	case errors.Is(err, io.EOF):
		return 0, ErrFormat
	case err != nil:
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

// readAhead reads up to the first frame of a pcapng, because interfaces may be described
// anywhere before it.
func (r *Reader) readAhead() error {
	first, err := r.Read()
	switch {
	case err == nil:
		r.ahead = &first
	case !errors.Is(err, io.EOF): // the next read returns io.EOF again
		return err
	}
	return nil
}

// explain adds the position in the capture to an error.
func (r *Reader) explain(err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w %s", ErrTruncated, r.position())
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.As(err, &corrupt):
		return fmt.Errorf("%w: %w", ErrBroken, err)
	case errors.Is(err, ErrBroken), errors.Is(err, ErrUnsupported):
		return fmt.Errorf("%w, %s", err, r.position())
	}
	return err
}

// position describes how far the capture was read.
func (r *Reader) position() string {
	if r.frames == 0 {
		return "before the first frame"
	}
	return fmt.Sprintf("after frame %d", r.frames)
}

// Nanoseconds reports whether the times may be finer than microseconds.
func (r *Reader) Nanoseconds() bool { return r.nanoseconds }

// Skipped returns the number of frames so far that belong to interfaces that were not
// asked for.
func (r *Reader) Skipped() uint64 { return r.skipped }

// Interfaces returns the number of interfaces described so far.
func (r *Reader) Interfaces() int { return r.source.interfaces() }

// Read returns the next frame, which is valid until the next Read. At the end the error
// is [io.EOF].
func (r *Reader) Read() (Frame, error) {
	if r.ahead != nil {
		f := *r.ahead
		r.ahead = nil
		return f, nil
	}
	for {
		f, err := r.source.next(r.isWanted)
		if errors.Is(err, io.EOF) {
			return Frame{}, io.EOF
		}
		if err != nil {
			return Frame{}, r.explain(err)
		}
		r.frames++
		if r.wanted(f.Interface) {
			return f, nil
		}
		r.skipped++
	}
}

func (r *Reader) wanted(iface int) bool { return r.only == nil || slices.Contains(r.only, iface) }

// finish returns a frame, given its data and its length on the wire, without the fcs
// bytes of frame check sequence that both include.
func finish(data []byte, length, fcs int) Frame {
	// A captured length cannot exceed the length. tcpdump and Wireshark show such frames
	// with all their data.
	length = max(length, len(data))
	if length >= fcs {
		length -= fcs
	}
	return Frame{Data: data[:min(len(data), length)], Length: length}
}

// ethernetFCS is the length in bytes of Ethernet's frame check sequence.
const ethernetFCS = 4

// maxSeconds is the largest time, in seconds, whose nanoseconds since 1970 fit into 64
// bits.
const maxSeconds = math.MaxInt64 / int64(time.Second)

// at returns a time in seconds and nanoseconds since 1970.
func at(seconds, nanoseconds int64) (time.Time, error) {
	if seconds < 0 || seconds >= maxSeconds {
		return time.Time{}, fmt.Errorf("%w: a frame has a time of %d seconds since 1970; want 0 to %d", ErrUnsupported, seconds, maxSeconds-1)
	}
	return time.Unix(seconds, nanoseconds).UTC(), nil
}

// full fills b. If the file ends before, the error is [io.ErrUnexpectedEOF].
func full(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// checkLength checks the captured length of a frame.
func checkLength(captured uint32) error {
	if captured > maxFrame {
		return fmt.Errorf("%w: a frame of %d bytes; at most %d are possible", ErrBroken, captured, maxFrame)
	}
	return nil
}
