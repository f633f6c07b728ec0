package trace

import (
	"encoding/binary"
	"errors"
	"time"

	"fragwall/packet/verdict"
)

// Decision is a decision as a client receives it.
type Decision struct {
	Time    time.Time
	From    verdict.Side
	Comment string // verdict, reason and rule
	Record  []byte // JSON; empty if the request did not ask for it
}

// Frame is one frame of a decision.
type Frame struct {
	Data   []byte // the captured bytes
	Length int    // on the wire, in bytes
}

// Sink receives the decoded stream. Arguments are valid until the method returns. An error ends
// the decoding.
type Sink interface {
	// Decision receives a decision. Its frames follow.
	Decision(*Decision) error
	// Frame receives a frame of the last decision.
	Frame(*Frame) error
	// Flush is called at the end of each record of the stream.
	Flush() error
}

// Decoder decodes what [Hub.Serve] sends.
type Decoder struct {
	Sink   Sink
	Missed uint64   // frames so far
	Shed   uint64   // fragments so far that the devices shed
	last   Decision // last decoded decision
}

// errMalformed is the error for a stream that this version cannot decode.
var errMalformed = errors.New("cannot read the instance's answer: are the versions different?")

// Decode decodes one record of the stream.
func (d *Decoder) Decode(items []byte) error {
	r := reader{items: items}
	for len(r.items) > 0 && !r.short {
		var err error
		switch r.take(1)[0] {
		case itemMissed:
			d.Missed = binary.BigEndian.Uint64(r.take(8))
		case itemShed:
			d.Shed = binary.BigEndian.Uint64(r.take(8))
		case itemDecision:
			d.last = Decision{Time: time.Unix(0, int64(binary.BigEndian.Uint64(r.take(8))))}
			d.last.From = verdict.Side(min(r.take(1)[0], verdict.Sides-1))
			d.last.Comment, d.last.Record = string(r.text()), r.text()
			if !r.short {
				err = d.Sink.Decision(&d.last)
			}
		case itemFrame:
			f := Frame{Length: int(binary.BigEndian.Uint32(r.take(4)))}
			if f.Data = r.text(); f.Length < len(f.Data) || f.Length > MaxSnapLength {
				return errMalformed
			}
			if !r.short {
				err = d.Sink.Frame(&f)
			}
		default:
			return errMalformed
		}
		if err != nil {
			return err
		}
	}
	if r.short {
		return errMalformed
	}
	return d.Sink.Flush()
}

// reader reads the fields of items.
type reader struct {
	items []byte
	short bool // the items ended within a field
}

// take returns the next n bytes. If fewer are left, it sets short and returns at most 8 zeros.
func (r *reader) take(n int) []byte {
	if r.short = r.short || n > len(r.items); r.short {
		return make([]byte, min(n, 8))
	}
	b := r.items[:n]
	r.items = r.items[n:]
	return b
}

// text returns the next text. Its length (4 bytes) comes first.
func (r *reader) text() []byte {
	n := int(binary.BigEndian.Uint32(r.take(4)))
	if r.short {
		return nil
	}
	return r.take(n)
}
