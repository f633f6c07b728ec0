package daemon

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestRelax(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	restore := relax(3)
	if n := runtime.GOMAXPROCS(0); n != before+3 {
		t.Errorf("%d processors, %d before", n, before)
	}
	if restore(); runtime.GOMAXPROCS(0) != before {
		t.Errorf("%d processors afterwards, %d before", runtime.GOMAXPROCS(0), before)
	}
	if os.Geteuid() != 0 {
		return // without privileges, the timer slack of threads stays as it is
	}
	threads, _ := filepath.Glob("/proc/self/task/*")
	relaxed := 0
	for _, thread := range threads {
		slack, err := os.ReadFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns"))
		if err == nil && strings.TrimSpace(string(slack)) == "1000000" {
			relaxed++
		}
	}
	if relaxed < 2 { // the monitor is not the first thread
		t.Errorf("%d of %d threads have the slack", relaxed, len(threads))
	}
}
