package capture

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Frame is one captured Ethernet frame.
type Frame struct {
	Data      []byte
	Length    int // on the wire; more than len(Data) where the snap length cut it
	Time      time.Time
	Interface int // of a pcapng, counted from 0; 0 in a pcap
}

// Errors that say what is wrong with a capture.
var (
	ErrEmpty     = errors.New("the file is empty")
	ErrFormat    = errors.New("neither pcap nor pcapng")
	ErrTruncated = errors.New("the capture is truncated")
	ErrLinkType  = errors.New("want Ethernet")
)

// snapLength is the longest frame in bytes that a pcap may hold, as in libpcap
// (MAXIMUM_SNAPLEN).
const snapLength = 262144

// bufferSize is how much of a file is read or written at once.
const bufferSize = 256 << 10

// source is either of pcapgo's readers.
type source interface {
	ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error)
}

// Reader reads the frames of a capture.
type Reader struct {
	source      source
	ng          *pcapgo.NgReader // nil where it is a pcap
	interfaces  []int            // to read; nil stands for all
	nanoseconds bool

	frames  uint64    // read so far, others included
	skipped uint64    // of other interfaces
	seen    int       // interfaces
	latest  time.Time // of a frame
	ahead   *Frame    // read before it was asked for
}

// NewReader returns a reader of the frames that were captured on some of the
// interfaces, or on all where none is given. It fails where there is nothing
// that it could read, such as an unknown format or another link type in front.
func NewReader(r io.Reader, interfaces ...int) (*Reader, error) {
	buffer, magic, err := open(r)
	if err != nil {
		return nil, err
	}
	n := &Reader{interfaces: interfaces, latest: time.Unix(0, 0).UTC()}
	switch magic {
	case magicPcapng:
		return n, n.openPcapng(buffer)
	case magicMicroseconds, magicMicrosecondsSwapped, magicNanoseconds, magicNanosecondsSwapped:
		return n, n.openPcap(buffer)
	}
	return nil, fmt.Errorf("%w: it begins with %#08x", ErrFormat, magic)
}

// The first four bytes of a file, read in big-endian order
// (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).
const (
	magicPcapng              = 0x0a0d0d0a
	magicMicroseconds        = 0xa1b2c3d4
	magicMicrosecondsSwapped = 0xd4c3b2a1
	magicNanoseconds         = 0xa1b23c4d
	magicNanosecondsSwapped  = 0x4d3cb2a1
	magicGzip                = 0x1f8b // the first two (RFC 1952)
)

// open returns what is in a file once it is decompressed, and its magic
// number.
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

func (r *Reader) openPcap(buffer *bufio.Reader) error {
	p, err := pcapgo.NewReader(buffer)
	if err != nil {
		return r.explain(err)
	}
	p.SetSnaplen(snapLength)
	r.source, r.seen = p, 1
	r.nanoseconds = p.Resolution() == gopacket.TimestampResolutionNanosecond
	return checkLinkType(p.LinkType())
}

// openPcapng reads up to the first frame, because the interfaces may be
// described anywhere before it.
func (r *Reader) openPcapng(buffer *bufio.Reader) error {
	var err error
	r.ng, err = pcapgo.NewNgReader(buffer, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return r.explain(err)
	}
	r.source, r.nanoseconds = r.ng, true
	first, err := r.Read()
	switch {
	case err == nil:
		r.ahead = &first
	case !errors.Is(err, io.EOF): // an end will be met again
		return err
	}
	return nil
}

// explain tells a capture that ends too early from one that is broken.
func (r *Reader) explain(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w after %d frames", ErrTruncated, r.frames)
	}
	return fmt.Errorf("the capture is broken: %w", err)
}

// Nanoseconds reports whether the times may be finer than microseconds.
func (r *Reader) Nanoseconds() bool { return r.nanoseconds }

// Skipped returns how many frames were left out so far because they are of
// other interfaces than those asked for.
func (r *Reader) Skipped() uint64 { return r.skipped }

// Interfaces returns how many interfaces were described so far.
func (r *Reader) Interfaces() int { return r.seen }

// Read returns the next frame, which is lent until the next Read. At the end
// the error is [io.EOF].
func (r *Reader) Read() (Frame, error) {
	if r.ahead != nil {
		f := *r.ahead
		r.ahead = nil
		return f, nil
	}
	for {
		data, info, err := r.source.ZeroCopyReadPacketData()
		if r.ng != nil {
			r.seen = max(r.seen, r.ng.NInterfaces())
		}
		// pcapgo calls a pcap that ends right behind a frame's record header an
		// end like any other.
		if errors.Is(err, io.EOF) && info.CaptureLength == 0 {
			return Frame{}, io.EOF
		}
		if err != nil {
			return Frame{}, r.explain(err)
		}
		r.frames++
		if r.interfaces != nil && !slices.Contains(r.interfaces, info.InterfaceIndex) {
			r.skipped++
			continue
		}
		return r.frame(data, info)
	}
}

func (r *Reader) frame(data []byte, info gopacket.CaptureInfo) (Frame, error) {
	if r.ng != nil {
		if err := checkLinkType(info.AncillaryData[0].(layers.LinkType)); err != nil {
			return Frame{}, fmt.Errorf("interface %d: %w", info.InterfaceIndex, err)
		}
	}
	if info.Timestamp.IsZero() { // pcapng's simple packet block has none
		info.Timestamp = r.latest
	}
	if s := info.Timestamp.Unix(); s < 0 || s > math.MaxUint32 {
		return Frame{}, fmt.Errorf("the capture is broken: frame %d has a time of %d seconds", r.frames, s)
	}
	r.latest = info.Timestamp
	return Frame{
		Data:      data,
		Length:    max(info.Length, len(data)),
		Time:      info.Timestamp,
		Interface: info.InterfaceIndex,
	}, nil
}
