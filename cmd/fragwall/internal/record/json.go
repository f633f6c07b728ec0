package record

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"strconv"
	"time"
)

// timeFormat is RFC 3339 with nine digits of nanoseconds.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// Record is a record that an [Encoder] encodes: a pointer to a [Decision] or an [Event].
type Record interface {
	when() time.Time
	Each(Field)
}

func (r *Decision) when() time.Time { return r.Time }

// Encoder encodes records without an allocation for each.
type Encoder struct {
	object []byte
	append Field
}

// NewEncoder returns an encoder.
func NewEncoder() *Encoder {
	e := &Encoder{}
	e.append = func(name string, value slog.Value) {
		e.object = append(append(append(e.object, `,"`...), name...), `":`...)
		e.object = appendValue(e.object, value)
	}
	return e
}

// Encode returns a record as a JSON object, valid until the next call.
func (e *Encoder) Encode(r Record) []byte {
	e.object = append(e.object[:0], `{"time":"`...)
	e.object = append(r.when().UTC().AppendFormat(e.object, timeFormat), '"')
	r.Each(e.append)
	e.object = append(e.object, '}')
	return e.object
}

// MarshalJSON implements [json.Marshaler].
func (r Decision) MarshalJSON() ([]byte, error) { return NewEncoder().Encode(&r), nil }

// MarshalJSON implements [json.Marshaler].
func (e Event) MarshalJSON() ([]byte, error) { return NewEncoder().Encode(&e), nil }

var (
	_ json.Marshaler = Decision{}
	_ json.Marshaler = Event{}
	_ Record         = (*Decision)(nil)
	_ Record         = (*Event)(nil)
)

// appendValue appends a value of a kind that records use.
func appendValue(b []byte, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindString:
		return appendText(b, v.String())
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10)
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool())
	}
	if address, ok := v.Any().(*netip.Addr); ok {
		return append(address.AppendTo(append(b, '"')), '"')
	}
	list, _ := json.Marshal(v.Any()) // does not fail for slices of numbers or strings
	return append(b, list...)
}

// appendText appends a string. Most strings need no escaping.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // does not fail for strings
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// Optional is a value that may be absent.
type Optional[T any] struct {
	Value T
	Set   bool
}

// Some returns a value that is set.
func Some[T any](v T) Optional[T] { return Optional[T]{v, true} }

// UnmarshalJSON implements [json.Unmarshaler].
func (o *Optional[T]) UnmarshalJSON(b []byte) error {
	o.Set = true
	return json.Unmarshal(b, &o.Value)
}

// MarshalJSON implements [json.Marshaler]. An absent value is null.
func (o Optional[T]) MarshalJSON() ([]byte, error) {
	if !o.Set {
		return []byte("null"), nil
	}
	return json.Marshal(o.Value)
}
