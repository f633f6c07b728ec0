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
var ErrStuck = errors.New("the log is stuck")

// Writer writes to a log, and waits a while for it at most: who has something to
// say may have a wire to mend. What a stuck log does not take is lost, all but
// what it is stuck at.
type Writer struct {
	patience time.Duration
	lines    chan line

	mu sync.Mutex
	// mu guards:
	stuck <-chan error // gets the outcome of what the log is stuck at; nil where it is not
}

// line is one Write.
type line struct {
	text  []byte
	taken chan<- error // has room
}

// NewWriter returns a writer to a log. It keeps a goroutine for as long as the
// process lives: one that is stuck can't be told to end.
func NewWriter(log io.Writer, patience time.Duration) *Writer {
	w := &Writer{patience: patience, lines: make(chan line, 1)}
	go func() {
		for l := range w.lines {
			_, err := log.Write(l.text)
			l.taken <- err
		}
	}()
	return w
}

// Write implements [io.Writer]. Its error is the log's own, or [ErrStuck].
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
	patience := time.NewTimer(w.patience)
	defer patience.Stop()
	select {
	case err := <-taken:
		if err != nil {
			return 0, err
		}
		return len(b), nil
	case <-patience.C:
		w.stuck = taken
		return 0, ErrStuck
	}
}
