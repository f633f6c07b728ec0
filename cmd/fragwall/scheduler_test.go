package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
		return // without the right to, threads stay as they are
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
		t.Errorf("%d of %d threads", relaxed, len(threads))
	}
}

// TestGoFirst looks at a child of its own, which does not come back from it.
func TestGoFirst(t *testing.T) {
	if os.Getenv("FRAGWALL_GO_FIRST") != "" {
		goFirst()
		for _, thread := range threads() {
			if n, err := unix.Getpriority(unix.PRIO_PROCESS, thread); err != nil || 20-n != eagerNice {
				t.Errorf("thread %d: nice %d, %v", thread, 20-n, err)
			}
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs the right to go before others")
	}
	c := exec.Command(os.Args[0], "-test.run", "^TestGoFirst$")
	c.Env = append(os.Environ(), "FRAGWALL_GO_FIRST=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
