package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"fragwall/integration/middle"
)

// observer measures the CPU time of a trial.
type observer struct {
	box     *middle.Box // nil if the middle is not fragwall
	others  middle.Foreign
	start   time.Time
	machine float64 // CPU seconds of all CPUs at the start
	process float64 // CPU seconds of fragwall's process at the start

	// Results:
	seconds    float64 // duration
	machineCPU float64 // CPU seconds of sender, middle and receiver together
	boxCPU     float64 // CPU seconds of fragwall's process
	foreign    float64 // cores used by other processes
}

func (o *observer) begin() {
	o.others, o.start, o.machine = middle.WatchForeign(), time.Now(), machineUse()
	if o.box != nil {
		o.process, _ = o.box.CPU()
	}
}

func (o *observer) end() {
	o.seconds = time.Since(o.start).Seconds()
	o.foreign = o.others.Cores()
	o.machineCPU = machineUse() - o.machine - o.foreign*o.seconds
	if o.box != nil {
		used, _ := o.box.CPU()
		o.boxCPU = used - o.process
	}
}

// machineUse returns the busy time of all CPUs since boot, in seconds (proc(5), /proc/stat: user,
// nice, system, idle, iowait, irq and softirq in hundredths of a second).
func machineUse() (seconds float64) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, word := range strings.Fields(line)[1:] {
		const idle, iowait, softirq = 3, 4, 6
		if n, _ := strconv.Atoi(word); i != idle && i != iowait && i <= softirq {
			seconds += float64(n) / 100
		}
	}
	return seconds
}
