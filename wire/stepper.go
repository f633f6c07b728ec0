package wire

import (
	"time"

	"fragwall/packet/verdict"
	"fragwall/tun"
)

// Stepper is a bump that its caller drives frame by frame, at times that the caller sets,
// instead of [Bump.Run]: for captures and tests. It starts no goroutine, and gives the same
// results on every run. Each side has one lane, of which only Write is used.
type Stepper struct {
	*Bump
	now   time.Time // the clock of the table and the flows; never runs backwards
	at    time.Time
	frame tun.Frame // the current frame; a field, so that none is allocated

	deadline time.Time // the earliest of all incomplete datagrams
	waits    bool      // whether there is any
}

// stepperKey and stepperSecret are the keys of the table and of the flows. They need not be
// secret.
var (
	stepperKey    = [16]byte{}
	stepperSecret = [2]uint64{0x9e3779b97f4a7c15, 0xd1b54a32d192ed03}
)

// NewStepper returns a stepper. Its clock replaces c.Now, and starts at the zero time.
func NewStepper(c Config) *Stepper {
	s := &Stepper{}
	c.Now = func() time.Time { return s.now }
	c.Fragments.Key = &stepperKey
	policy := *c.Policy // the rules still belong to the caller
	policy.Secret = &stepperSecret
	c.Policy = &policy
	s.Bump = New(c)
	return s
}

// At returns the time of the frame that is being decided or written. For datagrams that expire,
// this is their deadline; otherwise the time of the last frame.
func (s *Stepper) At() time.Time { return s.at }

// Forward takes a frame that arrived on side from at the given time, after dropping all
// datagrams whose deadline has passed. A time before that of an earlier frame does not turn the
// clock back: only [Stepper.At] shows it.
func (s *Stepper) Forward(from verdict.Side, f tun.Frame, at time.Time) {
	s.advance(at)
	d := s.direction(from)
	s.frame = f
	d.take(&s.frame)
	d.flush()
	if d.parsed.Fragmented {
		s.look()
	}
}

// direction returns the direction of a side, with a batch to be filled.
func (s *Stepper) direction(from verdict.Side) *direction {
	d := s.sides[from].directions[0]
	d.batch.observer = s.watch.get()
	return d
}

// look finds the next deadline.
func (s *Stepper) look() {
	if s.table != nil {
		s.deadline, s.waits = s.table.Deadline()
	}
}

// Drop drops a frame that arrived on side from at the given time, for a reason given by the
// caller.
func (s *Stepper) Drop(from verdict.Side, f tun.Frame, at time.Time, why verdict.Reason) {
	s.advance(at)
	d := s.direction(from)
	d.batch.bytes += len(f.Data)
	d.parsed.Decode(f.Data)
	s.frame = f
	d.drop(&s.frame, why)
	d.flush()
}

// advance advances the clock, and drops what expires in between, each datagram at its deadline.
func (s *Stepper) advance(to time.Time) {
	for s.waits && !s.deadline.After(to) {
		s.now, s.at = s.deadline, s.deadline
		s.expire(s.now)
		s.look()
	}
	if to.After(s.now) {
		s.now = to
	}
	s.at = to
}

// Close drops all held fragments, for [verdict.FragmentShutdown], at the current time of the
// clock.
func (s *Stepper) Close() {
	s.at = s.now
	s.closeTable()
}
