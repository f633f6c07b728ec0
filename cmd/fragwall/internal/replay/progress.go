package replay

import (
	"fmt"
	"io"
	"strings"
	"time"

	"fragwall/cmd/fragwall/internal/terminal"
)

// progress shows the progress of a long replay on a terminal. It shows nothing if stderr is not
// a terminal, or if verdicts go to a terminal too.
type progress struct {
	w     io.Writer // nil to show nothing
	in    *inputFile
	now   func() time.Time
	began time.Time
	next  time.Time // time of the next update
	shown bool
}

const (
	progressAfter = time.Second // shorter replays show no progress
	progressPause = 200 * time.Millisecond
	progressWidth = 30 // width of the bar in characters
)

func newProgress(w io.Writer, files *files) *progress {
	p := &progress{in: files.in, now: time.Now}
	if terminal.Is(w) && !(files.stdoutTaken && terminal.Is(files.stdout)) {
		p.start(w)
	}
	return p
}

func (p *progress) start(w io.Writer) {
	p.w, p.began = w, p.now()
	p.next = p.began.Add(progressAfter)
}

// clearLine moves to the beginning of the line and clears it (ECMA-48).
const clearLine = "\r\x1b[K"

// update shows the number of frames read.
func (p *progress) update(frames int) {
	if p.w == nil {
		return
	}
	now := p.now()
	if now.Before(p.next) {
		return
	}
	p.next, p.shown = now.Add(progressPause), true
	elapsed := now.Sub(p.began).Seconds()
	text := fmt.Sprintf("%s, %.0f a second", terminal.Count(frames, "frame"), float64(frames)/elapsed)
	if size := p.in.size(); size > 0 && p.in.read > 0 {
		done := min(float64(p.in.read)/float64(size), 1)
		filled := int(done * progressWidth)
		left := time.Duration(elapsed * (1 - done) / done * float64(time.Second))
		text = fmt.Sprintf("[%s%s] %3.0f %%, %s, %v left", strings.Repeat("#", filled),
			strings.Repeat(" ", progressWidth-filled), 100*done, text, left.Round(time.Second))
	}
	fmt.Fprint(p.w, clearLine+text)
}

// end clears the line.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.w, clearLine)
	}
}
