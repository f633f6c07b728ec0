package record

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"strconv"
	"time"
)

// timeFormat is RFC 3339 with nanoseconds, always nine digits of them.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// Record is what an [Encoder] takes: a pointer to a [Decision] or an [Event].
type Record interface {
	when() time.Time
	Each(Field)
}

func (r *Decision) when() time.Time { return r.Time }

// Encoder encodes records one by one, without an allocation for each.
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

// Encode returns a record as a JSON object, which is lent until the next call.
func (e *Encoder) Encode(r Record) []byte {
	e.object = append(e.object[:0], `{"time":"`...)
	e.object = append(r.when().UTC().AppendFormat(e.object, timeFormat), '"')
	r.Each(e.append)
	e.object = append(e.object, '}')
	return e.object
}

// MarshalJSON returns the record as a JSON object.
func (r Decision) MarshalJSON() ([]byte, error) { return NewEncoder().Encode(&r), nil }

// MarshalJSON returns the record as a JSON object.
func (e Event) MarshalJSON() ([]byte, error) { return NewEncoder().Encode(&e), nil }

var (
	_ json.Marshaler = Decision{}
	_ json.Marshaler = Event{}
	_ Record         = (*Decision)(nil)
	_ Record         = (*Event)(nil)
)

// appendValue appends a value of one of the kinds that records have.
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
	list, _ := json.Marshal(v.Any()) // numbers or strings always can be
	return append(b, list...)
}

// appendText appends a string, most of which have nothing to escape.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always can be
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// Optional is a value that a record may lack.
type Optional[T any] struct {
	Value T
	Set   bool
}

// Some returns a value that is there.
func Some[T any](v T) Optional[T] { return Optional[T]{v, true} }

// UnmarshalJSON sets the value.
func (o *Optional[T]) UnmarshalJSON(b []byte) error {
	o.Set = true
	return json.Unmarshal(b, &o.Value)
}

// MarshalJSON returns the value; it is null where it is not there.
func (o Optional[T]) MarshalJSON() ([]byte, error) {
	if !o.Set {
		return []byte("null"), nil
	}
	return json.Marshal(o.Value)
}
