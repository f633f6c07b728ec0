package events

import (
	"errors"
	"io"
	"slices"
	"sync"
	"time"
)

// ErrStuck is of a log that takes nothing, as a pipe that is full and that
// nobody reads.
var ErrStuck = errors.New("the log does not accept records")

// Writer writes to a log, and waits for it no longer than a timeout, so that a
// stuck log does not stop who writes to it. What it does not take meanwhile is
// lost, except for the line that it is stuck at.
type Writer struct {
	timeout time.Duration
	lines   chan line

	mu sync.Mutex
	// mu guards:
	stuck <-chan error // gets the outcome of what the log is stuck at; nil where it is not
}

// line is one Write.
type line struct {
	text  []byte
	taken chan<- error // has room
}

// NewWriter returns a writer to a log. Its goroutine lives as long as the process:
// while the log is stuck it can't be stopped.
func NewWriter(log io.Writer, timeout time.Duration) *Writer {
	w := &Writer{timeout: timeout, lines: make(chan line, 1)}
	go func() {
		for l := range w.lines {
			_, err := log.Write(l.text)
			l.taken <- err
		}
	}()
	return w
}

var _ io.Writer = (*Writer)(nil)

// Write writes to the log. Its error is the log's own, or [ErrStuck].
func (w *Writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stuck != nil {
		select {
		case <-w.stuck:
			w.stuck = nil
		default:
			return 0, ErrStuck
		}
	}
	taken := make(chan error, 1)
	w.lines <- line{slices.Clone(b), taken} // has room: all before was taken
	timeout := time.NewTimer(w.timeout)
	defer timeout.Stop()
	select {
	case err := <-taken:
		if err != nil {
			return 0, err
		}
		return len(b), nil
	case <-timeout.C:
		w.stuck = taken
		return 0, ErrStuck
	}
}
