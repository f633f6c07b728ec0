package events

import (
	"errors"
	"io"
	"slices"
	"sync"
	"time"
)

// ErrStuck reports a log that accepts nothing, such as a full pipe without a reader.
var ErrStuck = errors.New("the log does not accept records")

// Writer writes to a log with a timeout, so that a stuck log does not block the caller. What
// the log does not accept in the meantime is lost, except for the line that it is stuck at.
type Writer struct {
	timeout time.Duration
	lines   chan line

	mu sync.Mutex
	// mu guards:
	stuck <-chan error // receives the result of the write that the log is stuck at; nil if it is not stuck
}

// line is the text of one Write.
type line struct {
	text  []byte
	taken chan<- error // buffered
}

// NewWriter returns a writer to a log. Its goroutine lives as long as the process, because a
// write to a stuck log cannot be interrupted.
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

// Write implements [io.Writer]. It returns the error of the log, or [ErrStuck].
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
	w.lines <- line{slices.Clone(b), taken} // does not block: the previous line was taken
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
