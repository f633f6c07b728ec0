package trace

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/record"
	"fragwall/packet/verdict"
)

// A record of the stream is a sequence of items. Each begins with its kind; numbers
// have the most significant byte first.
const (
	// itemDecision: time in nanoseconds since 1970 (8 bytes), side (1), what was
	// decided and why (4 bytes of length, text), record as JSON (4 bytes of length,
	// text; none where it was not asked for).
	itemDecision = 1
	// itemFrame: length on the wire (4 bytes), and what was captured of it (4 bytes
	// of length, frame). It belongs to the decision in front of it.
	itemFrame = 2
	// itemMissed: frames that were missed since the beginning (8 bytes).
	itemMissed = 3
	// itemShed: fragments that the devices refused since the beginning (8 bytes),
	// before the wire could tell anybody of them.
	itemShed = 4
)

const (
	// pollEvery is how long a decision may wait in the ring before a client gets
	// it.
	pollEvery = 10 * time.Millisecond
	// batchBytes is after how many bytes items are sent. With the longest item they
	// are less than control.MaxRecord.
	batchBytes = 256 << 10
)

// Serve sends a client what it asks for until ctx is done or the client is gone.
func (h *Hub) Serve(ctx context.Context, request *Request, to *control.Stream) error {
	m, err := request.matcher()
	if err != nil {
		return &exit.UsageError{Err: err}
	}
	if err := h.checkRule(request.Rule); err != nil {
		return err
	}
	s := &session{m, newRing(request.SnapLength)}
	h.add(s)
	defer h.remove(s)
	w := &writer{ring: s.ring, records: request.Records, encoder: record.NewEncoder(), to: to, shed: func() uint64 { return 0 }}
	if request.wantsShed() {
		before := h.allShed()
		w.shed = func() uint64 { return h.allShed() - before }
	}
	w.appendMissed() // the first item says that it has begun
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		if err := w.drain(); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// allShed returns how many fragments the devices of both sides refused.
func (h *Hub) allShed() uint64 { return h.shed(verdict.Inside) + h.shed(verdict.Outside) }

// checkRule refuses the name of a rule that there is not.
func (h *Hub) checkRule(name string) error {
	rules := h.policy().Policy().Rules
	for i := range rules {
		if name == "" || rules[i].Name == name {
			return nil
		}
	}
	if name == "" {
		return nil
	}
	return exit.Usagef("--rule: the policy in force has no rule %q", name)
}

// writer sends what is in a ring.
type writer struct {
	ring    *ring
	records bool // with the decisions' records as JSON
	encoder *record.Encoder
	to      *control.Stream

	shed func() uint64 // fragments, since the beginning

	items     []byte // not sent yet
	missed    uint64 // as the client knows it
	knownShed uint64 // as the client knows it
	left      int    // bytes of the last frame that are still in the ring
}

// drain sends all that is in the ring.
func (w *writer) drain() error {
	for s := w.ring.next(); s != nil; s = w.ring.next() {
		w.append(s)
		w.ring.release()
		if len(w.items) >= batchBytes && w.left == 0 {
			if err := w.send(); err != nil {
				return err
			}
		}
	}
	if w.left > 0 {
		return nil // the rest of the frame is on its way
	}
	w.appendCounts()
	if len(w.items) == 0 {
		return nil
	}
	return errors.Join(w.send(), w.to.Flush())
}

// appendCounts adds how many frames the client does not get, if there are more.
func (w *writer) appendCounts() {
	if w.ring.missed.Load() != w.missed {
		w.appendMissed()
	}
	if shed := w.shed(); shed != w.knownShed {
		w.knownShed = shed
		w.items = binary.BigEndian.AppendUint64(append(w.items, itemShed), shed)
	}
}

// send sends the items, and how many frames the client does not get so far.
func (w *writer) send() error {
	w.appendCounts()
	err := w.to.Send(w.items)
	w.items = w.items[:0]
	return err
}

// append adds what a slot has.
func (w *writer) append(s *slot) {
	if s.first {
		w.appendDecision(&s.record)
		if s.frames == 0 {
			return
		}
	}
	if w.left == 0 {
		w.items = binary.BigEndian.AppendUint32(append(w.items, itemFrame), uint32(s.length))
		w.items = binary.BigEndian.AppendUint32(w.items, uint32(s.captured))
		w.left = s.captured
	}
	n := min(w.left, len(s.data))
	w.items = append(w.items, s.data[:n]...)
	w.left -= n
}

func (w *writer) appendDecision(r *record.Decision) {
	w.items = binary.BigEndian.AppendUint64(append(w.items, itemDecision), uint64(r.Time.UnixNano()))
	side := verdict.Inside
	if r.From == verdict.Outside.String() {
		side = verdict.Outside
	}
	w.items = append(w.items, byte(side))
	comment := r.Comment()
	w.items = append(binary.BigEndian.AppendUint32(w.items, uint32(len(comment))), comment...)
	var text []byte
	if w.records {
		text = w.encoder.Encode(r)
	}
	w.items = append(binary.BigEndian.AppendUint32(w.items, uint32(len(text))), text...)
}

func (w *writer) appendMissed() {
	w.missed = w.ring.missed.Load()
	w.items = binary.BigEndian.AppendUint64(append(w.items, itemMissed), w.missed)
}
