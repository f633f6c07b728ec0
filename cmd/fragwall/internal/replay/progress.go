package replay

import (
	"fmt"
	"io"
	"strings"
	"time"

	"fragwall/cmd/fragwall/internal/terminal"
)

// progress shows on a terminal how far a long replay has come. Elsewhere, and
// where verdicts go to a terminal too, it shows nothing.
type progress struct {
	w     io.Writer // nil where it shows nothing
	in    *inputFile
	now   func() time.Time
	began time.Time
	next  time.Time // to show it at
	shown bool
}

const (
	progressAfter = time.Second // shorter replays show none
	progressPause = 200 * time.Millisecond
	progressWidth = 30 // of the bar, in characters
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

// clearLine returns to the beginning of the line and empties it (ECMA-48).
const clearLine = "\r\x1b[K"

// update shows how many frames were read.
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
	text := fmt.Sprintf("%d frames, %.0f a second", frames, float64(frames)/elapsed)
	if size := p.in.size(); size > 0 && p.in.read > 0 {
		done := min(float64(p.in.read)/float64(size), 1)
		filled := int(done * progressWidth)
		left := time.Duration(elapsed * (1 - done) / done * float64(time.Second))
		text = fmt.Sprintf("[%s%s] %3.0f %%, %s, %v left", strings.Repeat("#", filled),
			strings.Repeat(" ", progressWidth-filled), 100*done, text, left.Round(time.Second))
	}
	fmt.Fprint(p.w, clearLine+text)
}

// end takes away what is shown.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.w, clearLine)
	}
}
