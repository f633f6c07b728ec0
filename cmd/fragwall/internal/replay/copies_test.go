package replay

import (
	"testing"
	"time"

	"fragwall/packet/verdict"
	"fragwall/tun/capture"
)

// began is the time of the first frame in the captures of the tests.
var began = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// TestCopies checks frames that appear again on the other side, soon and late, and on the same
// side.
func TestCopies(t *testing.T) {
	c := newCopies()
	frame := func(i byte, after time.Duration) capture.Frame {
		return capture.Frame{Data: []byte{i}, Time: began.Add(after)}
	}
	for i, step := range []struct {
		frame capture.Frame
		from  verdict.Side
		want  bool
	}{
		{frame(1, 0), verdict.Inside, false},
		{frame(1, 0), verdict.Inside, false},
		{frame(1, time.Second), verdict.Outside, true},
		{frame(1, time.Second), verdict.Outside, false}, // the original already has a copy
		{frame(2, 0), verdict.Outside, false},
		{frame(2, 1001*time.Millisecond), verdict.Inside, false},
	} {
		if got := c.isCopy(step.frame, step.from); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
	for i := range 3 * copiesKept {
		c.isCopy(capture.Frame{Data: []byte{byte(i), byte(i >> 8)}, Time: began}, verdict.Inside)
	}
	if len(c.came) > copiesKept {
		t.Errorf("%d frames are kept, want at most 4096", len(c.came))
	}
}
