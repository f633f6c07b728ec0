package events_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/events"
)

// TestWriter has a log that is stuck for a while.
func TestWriter(t *testing.T) {
	r, log := io.Pipe() // which takes what somebody reads
	w := events.NewWriter(log, time.Millisecond)
	for range 3 {
		if n, err := w.Write([]byte("stuck\n")); n != 0 || !errors.Is(err, events.ErrStuck) {
			t.Fatal(n, err)
		}
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		b := make([]byte, 100)
		for {
			n, err := r.Read(b)
			if err != nil {
				return
			}
			lines <- string(b[:n])
		}
	}()
	if got := <-lines; got != "stuck\n" {
		t.Errorf("%q", got)
	}
	// Of all that was said, the log takes what it was stuck at, and what comes
	// when it is no more.
	go func() {
		for {
			if _, err := w.Write([]byte("again\n")); err == nil {
				_ = log.CloseWithError(io.ErrClosedPipe)
				return
			}
		}
	}()
	for got := range lines {
		if got != "again\n" {
			t.Errorf("%q", got)
		}
	}
}

// TestWriterFails passes on why a log does not take a line.
func TestWriterFails(t *testing.T) {
	r, log := io.Pipe()
	full := errors.New("full")
	_ = r.CloseWithError(full)
	if _, err := events.NewWriter(log, time.Minute).Write([]byte("x")); !errors.Is(err, full) {
		t.Error(err)
	}
}
