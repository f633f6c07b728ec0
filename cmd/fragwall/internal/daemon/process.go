package daemon

import (
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"fragwall/cmd/fragwall/internal/box"
)

// What the daemon sets for the whole process: how it dies, its signals, its memory and
// its scheduler. Nothing else of the command changes any of these.

// claim has a panic end the process by a signal, since exit code 2 is that of a wrong
// configuration, and lets a log that nobody reads any more be no reason to end.
func claim() {
	debug.SetTraceback("crash")
	signal.Ignore(syscall.SIGPIPE)
}

// Limits of the collector's freedom; docs/attack.md names them.
const (
	// spareMemory in bytes is for what is neither a fragment nor a rule: flows,
	// the frames of a batch, what gVisor put together, the runtime's own.
	spareMemory = 32 << 20
	// spareFragments of what fragments may take is for the collector, so that a
	// full table does not have it run all the time.
	spareFragments = 0.25
	// lazyCollector has the collector wait until the heap is five times what is
	// in use, which is little while no flood is on.
	lazyCollector = 400
)

// limitMemory has the collector keep the process close to what the fragments in
// waiting may take, in bytes, and rarely run while they take less. To what else
// is in use now, as the rules, it leaves as much again. GOMEMLIMIT and GOGC in
// the environment take precedence.
func limitMemory(b *box.Box, fragments int64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(lazyCollector)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.SetMemoryLimit(memoryLimit(fragments, max(0, int64(m.HeapAlloc)-b.Usage().Bytes)))
}

// memoryLimit returns the limit for a process that uses so much besides
// fragments.
func memoryLimit(fragments, used int64) int64 {
	return fragments + int64(float64(fragments)*spareFragments) + 2*used + spareMemory
}

// monitorSlack is how late the kernel may wake the runtime's monitor.
const monitorSlack = time.Millisecond

// relax fits Go's scheduler to goroutines that wait in the kernel, one a lane,
// and never leave their threads.
//
// The runtime's monitor (runtime.sysmon) looks every 20 µs for who waits in a
// system call, and as long as it finds one, takes the processor away and looks
// again as soon: it runs as often as a lane under little load does, on the CPU
// that the lane is about to need, and the lane then has to find a processor.
// With a processor more for each lane, others find one without waiting; and a
// monitor that wakes up once in a millisecond is often enough. Together they
// take a third off the round trip. The processors are gone after restore.
func relax(lanes int) (restore func()) {
	processors := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(processors + lanes)
	restore = func() { runtime.GOMAXPROCS(processors) }

	slack := []byte(strconv.FormatInt(monitorSlack.Nanoseconds(), 10))
	for _, thread := range threads() {
		// Threads are in /proc by their own numbers, too. Without CAP_SYS_NICE
		// all stays as it was, and works.
		_ = os.WriteFile(filepath.Join("/proc", strconv.Itoa(thread), "timerslack_ns"), slack, 0)
	}
	return restore
}

// threads returns the numbers of the process's threads.
func threads() (numbers []int) {
	paths, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return nil
	}
	for _, path := range paths {
		if n, err := strconv.Atoi(filepath.Base(path)); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers
}
