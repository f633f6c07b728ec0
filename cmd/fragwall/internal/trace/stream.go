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

// A record of the stream is a sequence of items. Each item begins with its kind. Numbers are
// big-endian.
const (
	// itemDecision: time in nanoseconds since 1970 (8 bytes), side (1), verdict and reason (4
	// bytes of length, text), JSON record (4 bytes of length, text; empty if the request did
	// not ask for it).
	itemDecision = 1
	// itemFrame: length on the wire (4 bytes), captured bytes (4 bytes of length, data). It
	// belongs to the decision before it.
	itemFrame = 2
	// itemMissed: number of missed frames since the capture began (8 bytes).
	itemMissed = 3
	// itemShed: number of fragments since the capture began (8 bytes) that the devices shed
	// before the wire could observe them.
	itemShed = 4
)

const (
	// pollEvery is the maximum time that a decision stays in the ring while the client keeps
	// up.
	pollEvery = 10 * time.Millisecond
	// batchBytes is the number of bytes after which items are sent. Together with the longest
	// item, a batch is shorter than control.MaxRecord.
	batchBytes = 256 << 10
)

// Serve sends a client what it requested until ctx is done or the client disconnects.
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
	w.appendMissed() // the first item tells the client that the capture has begun
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

// allShed returns the number of fragments that the devices of both sides have shed.
func (h *Hub) allShed() uint64 { return h.shed(verdict.Inside) + h.shed(verdict.Outside) }

// checkRule rejects the name of a rule that does not exist.
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

// writer sends the contents of a ring.
type writer struct {
	ring    *ring
	records bool // whether to send decisions as JSON
	encoder *record.Encoder
	to      *control.Stream

	shed func() uint64 // number of fragments since the capture began

	items     []byte // not sent yet
	missed    uint64 // last value sent
	knownShed uint64 // last value sent
	left      int    // bytes of the last frame that have not left the ring
}

// drain sends everything that is in the ring.
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
		return nil // the writer has not filled the rest yet
	}
	w.appendCounts()
	if len(w.items) == 0 {
		return nil
	}
	return errors.Join(w.send(), w.to.Flush())
}

// appendCounts appends the counts of missed and shed frames that have changed.
func (w *writer) appendCounts() {
	if w.ring.missed.Load() != w.missed {
		w.appendMissed()
	}
	if shed := w.shed(); shed != w.knownShed {
		w.knownShed = shed
		w.items = binary.BigEndian.AppendUint64(append(w.items, itemShed), shed)
	}
}

// send sends the items, with the current counts.
func (w *writer) send() error {
	w.appendCounts()
	err := w.to.Send(w.items)
	w.items = w.items[:0]
	return err
}

// append appends the contents of a slot.
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
