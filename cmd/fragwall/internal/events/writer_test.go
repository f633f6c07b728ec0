package events_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/events"
)

// TestWriter checks the writer while its log is stuck and afterwards.
func TestWriter(t *testing.T) {
	r, log := io.Pipe() // a write blocks until it is read
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
	// The log gets the line that it was stuck at, and then only lines written after it was free
	// again.
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

// TestWriterFails checks that Write returns the error of the log.
func TestWriterFails(t *testing.T) {
	r, log := io.Pipe()
	full := errors.New("full")
	_ = r.CloseWithError(full)
	if _, err := events.NewWriter(log, time.Minute).Write([]byte("x")); !errors.Is(err, full) {
		t.Error(err)
	}
}
