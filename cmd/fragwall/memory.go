package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

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
func limitMemory(b *box, fragments int64) {
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
