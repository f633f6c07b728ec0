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

// This file has the settings that apply to the whole process: crashes, signals, memory and
// scheduler. No other code of the command changes them.

// claim makes a panic end the process with a signal, because exit code 2 means an invalid
// configuration. It also ignores SIGPIPE, so that a log without a reader does not end the
// process.
func claim() {
	debug.SetTraceback("crash")
	signal.Ignore(syscall.SIGPIPE)
}

// Limits for the garbage collector. docs/attack.md documents them.
const (
	// spareMemory is the memory in bytes for everything except fragments and rules: flows,
	// frames of a batch, datagrams that gVisor has reassembled, and the runtime itself.
	spareMemory = 32 << 20
	// spareFragments is the share of the fragments' memory that is added for the collector, so
	// that it does not run all the time when the table is full.
	spareFragments = 0.25
	// lazyCollector lets the heap grow to five times the memory in use before the collector
	// runs. Without a flood, that is little memory.
	lazyCollector = 400
)

// limitMemory sets the memory limit of the runtime to little more than fragments, the limit on
// memory for incomplete datagrams in bytes. Below it, the collector rarely runs. Other memory
// that is in use now, such as for rules, is counted twice. GOMEMLIMIT and GOGC in the
// environment take precedence.
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

// memoryLimit returns the limit for a process that uses used bytes in addition to fragments.
func memoryLimit(fragments, used int64) int64 {
	return fragments + int64(float64(fragments)*spareFragments) + 2*used + spareMemory
}

// monitorSlack is the timer slack of the runtime's monitor thread.
const monitorSlack = time.Millisecond

// relax adapts Go's scheduler to goroutines that wait in the kernel and never leave their
// threads, one per lane.
//
// The monitor of the runtime (runtime.sysmon) checks every 20 µs for goroutines in a system
// call. While it finds one, it takes the processor away from it and checks again soon. It then
// runs as often as a lane under little load, on the CPU that the lane is about to need, and the
// lane has to find a processor afterwards. One more processor per lane avoids waiting for a
// processor, and a monitor that wakes up once per millisecond is sufficient. Together, this
// shortens the round trip by a third. restore removes the processors.
func relax(lanes int) (restore func()) {
	processors := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(processors + lanes)
	restore = func() { runtime.GOMAXPROCS(processors) }

	slack := []byte(strconv.FormatInt(monitorSlack.Nanoseconds(), 10))
	for _, thread := range threads() {
		// /proc also has threads under their own IDs. Without CAP_SYS_NICE, the slack stays as
		// it is, which also works.
		_ = os.WriteFile(filepath.Join("/proc", strconv.Itoa(thread), "timerslack_ns"), slack, 0)
	}
	return restore
}

// threads returns the IDs of the threads of the process.
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
