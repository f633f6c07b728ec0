package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// watched runs show until the third answer, at which it calls end, and returns what was
// written.
func watched(t *testing.T, lines bool, end func(stop func()) error) (text string, err error) {
	t.Helper()
	var out strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &cobra.Command{}
	c.SetContext(ctx)
	c.SetOut(&out)
	f := watchFlags{watch: true, interval: time.Millisecond}
	n := 0
	err = f.show(c, lines, func(_ context.Context, to io.Writer, _ int) error {
		if n++; n == 3 {
			return end(cancel)
		}
		_, err := io.WriteString(to, "answer\n")
		return err
	})
	return out.String(), err
}

// TestWatch checks that show repeats the answer until a signal or an error.
func TestWatch(t *testing.T) {
	interrupted := func(stop func()) error { stop(); return context.Canceled }
	if text, err := watched(t, false, interrupted); text != "answer\n\nanswer\n\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := watched(t, true, interrupted); text != "answer\nanswer\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	gone := errors.New("gone")
	if _, err := watched(t, true, func(func()) error { return gone }); !errors.Is(err, gone) {
		t.Error(err)
	}
}
