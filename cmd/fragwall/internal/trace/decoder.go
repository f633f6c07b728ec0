package trace

import (
	"encoding/binary"
	"errors"
	"time"

	"fragwall/packet/verdict"
)

// Decision is a decision as a client gets it.
type Decision struct {
	Time    time.Time
	From    verdict.Side
	Comment string // the verdict, the reason and the rule
	Record  []byte // as JSON; empty where it was not asked for
}

// Frame is one of the frames of a decision.
type Frame struct {
	Data   []byte // as much as was asked for
	Length int    // on the wire, in bytes
}

// Sink takes what a client gets. What it is called with is valid until it returns. An
// error ends the reading.
type Sink interface {
	// Decision takes a decision, whose frames follow.
	Decision(*Decision) error
	// Frame takes a frame of the last decision.
	Frame(*Frame) error
	// Flush is called when no more is there for now.
	Flush() error
}

// Decoder reads what [Hub.Serve] sends.
type Decoder struct {
	Sink   Sink
	Missed uint64   // frames, so far
	Shed   uint64   // fragments, so far, that the devices refused
	last   Decision // that was read
}

// errMalformed is of a stream that another version may have sent.
var errMalformed = errors.New("cannot read the instance's answer: are the versions different?")

// Decode takes a record of the stream.
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

// reader reads the parts of items.
type reader struct {
	items []byte
	short bool // they ended too early
}

// take returns the next n bytes; zeros where there are not as many.
func (r *reader) take(n int) []byte {
	if r.short = r.short || n > len(r.items); r.short {
		return make([]byte, min(n, 8))
	}
	b := r.items[:n]
	r.items = r.items[n:]
	return b
}

// text returns the next text, in front of which its length is.
func (r *reader) text() []byte {
	n := int(binary.BigEndian.Uint32(r.take(4)))
	if r.short {
		return nil
	}
	return r.take(n)
}
