package middle

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// QuietEnough is the number of cores below which the CPU use of other processes does not disturb a
// trial.
const QuietEnough = 0.15

// AwaitQuiet waits until other processes use less than [QuietEnough], but at most for the timeout.
func AwaitQuiet(ctx context.Context, timeout time.Duration) {
	deadline := time.Now().Add(timeout)
	for ctx.Err() == nil && time.Now().Before(deadline) {
		f := WatchForeign()
		time.Sleep(300 * time.Millisecond)
		if f.Cores() < QuietEnough {
			return
		}
	}
}

// Foreign measures the CPU time of all processes except this one, its ancestors and its descendants.
type Foreign struct {
	start time.Time
	used  map[int]float64 // CPU seconds at the start, by PID
}

// WatchForeign starts a measurement.
func WatchForeign() Foreign { return Foreign{time.Now(), foreignUse()} }

// Cores returns the average number of cores that these processes have used since the start.
func (f Foreign) Cores() float64 {
	var sum float64
	for pid, used := range foreignUse() {
		if before, ok := f.used[pid]; ok {
			sum += used - before
		} else {
			sum += used
		}
	}
	return sum / time.Since(f.start).Seconds()
}

// foreignUse returns the CPU seconds of other processes by PID (proc(5), /proc/pid/stat: field 4 is
// the parent; fields 14 and 15 are utime and stime in hundredths of a second). It leaves out kernel
// threads, which are children of PID 2, because they work for all processes.
func foreignUse() map[int]float64 {
	type process struct {
		parent int
		used   float64
	}
	all := map[int]process{}
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		parent, _ := strconv.Atoi(f[1])
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		all[pid] = process{parent, float64(user+system) / 100}
	}
	self := os.Getpid()
	ancestors := map[int]bool{}
	for pid := self; pid > 0; pid = all[pid].parent {
		ancestors[pid] = true
	}
	used := map[int]float64{}
	for pid, p := range all {
		if !ancestors[pid] && pid != 2 && p.parent != 2 && !descends(pid, self, func(pid int) int { return all[pid].parent }) {
			used[pid] = p.used
		}
	}
	return used
}

// descends reports whether pid is from or one of its descendants.
func descends(pid, from int, parent func(int) int) bool {
	for ; pid > 0; pid = parent(pid) {
		if pid == from {
			return true
		}
	}
	return false
}
