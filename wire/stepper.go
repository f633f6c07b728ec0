package wire

import (
	"time"

	"fragwall/packet/verdict"
	"fragwall/tun"
)

// Stepper is a bump that its caller drives frame by frame, at times that the
// caller names, in place of [Bump.Run]: for captures and for tests. It starts
// no goroutine, and does the same at every run. Each side has one
// lane, of which only Write is used.
type Stepper struct {
	*Bump
	now   time.Time // the clock of all that waits; never runs backwards
	at    time.Time
	frame tun.Frame // that came in last; a field, so that none is allocated

	deadline time.Time // the earliest of what waits
	waits    bool      // whether anything does
}

// stepperKey and stepperSecret are those of the table and of the flows: there
// is nobody to hide them from.
var (
	stepperKey    = [16]byte{}
	stepperSecret = [2]uint64{0x9e3779b97f4a7c15, 0xd1b54a32d192ed03}
)

// NewStepper returns a stepper. Its clock takes the place of c.Now, and stands
// at the beginning of time.
func NewStepper(c Config) *Stepper {
	s := &Stepper{}
	c.Now = func() time.Time { return s.now }
	c.Fragments.Key = &stepperKey
	policy := *c.Policy // whose rules stay the caller's
	policy.Secret = &stepperSecret
	c.Policy = &policy
	s.Bump = New(c)
	return s
}

// At returns the time of what is being decided or written: that of the frame
// that came in last or, of what is dropped for having waited in vain, its
// deadline.
func (s *Stepper) At() time.Time { return s.at }

// Forward takes a frame that came in by side from at a time, after dropping
// all that should have been whole before. A time before that of an earlier
// frame does not turn the clock back: only [Stepper.At] shows it.
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

// direction returns that of a side, with a batch to be filled.
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

// Drop drops a frame that came in by side from at a time, for a reason that
// the caller has.
func (s *Stepper) Drop(from verdict.Side, f tun.Frame, at time.Time, why verdict.Reason) {
	s.advance(at)
	d := s.direction(from)
	d.batch.bytes += len(f.Data)
	d.parsed.Decode(f.Data)
	s.frame = f
	d.drop(&s.frame, why)
	d.flush()
}

// advance lets the time come, and drops what times out on the way, each at its
// time.
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

// Close drops what still waits, for [verdict.FragmentShutdown], at the time of
// the clock.
func (s *Stepper) Close() {
	s.at = s.now
	s.closeTable()
}
