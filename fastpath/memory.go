package fastpath

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"fragwall/packet/verdict"
	"fragwall/tun/shared"
)

// memory is the memory that the programs and user space share (bpf/layout.h). It stays mapped
// as long as anything refers to it, even after the maps are closed.
type memory struct {
	config    *programConfig
	common    *programShared
	slots     []programSlot // by number; 0 is unused
	fragments []programFragmentSlot
	orders    []programOrder
	totals    []programTotals // by CPU
	passed    []uint64        // counts of each CPU, by side and reason
}

// share maps the memory of the maps.
func share(maps *programMaps) (*memory, error) {
	m := &memory{}
	if err := m.mapAll(maps); err != nil {
		return nil, fmt.Errorf("map the memory of the fast path: %w", err)
	}
	return m, nil
}

func (m *memory) mapAll(maps *programMaps) error {
	configs, err := shared.Array[programConfig](m, maps.Configs)
	if err != nil {
		return err
	}
	common, err := shared.Array[programShared](m, maps.Common)
	if err != nil {
		return err
	}
	m.config, m.common = &configs[0], &common[0]
	if m.slots, err = shared.Array[programSlot](m, maps.Slots); err != nil {
		return err
	}
	if m.fragments, err = shared.Array[programFragmentSlot](m, maps.Fragments); err != nil {
		return err
	}
	if m.orders, err = shared.Array[programOrder](m, maps.Orders); err != nil {
		return err
	}
	if m.totals, err = shared.Array[programTotals](m, maps.CpuTotals); err != nil {
		return err
	}
	m.passed, err = shared.Array[uint64](m, maps.Passed)
	return err
}

// setFlag sets or clears a flag of the configuration.
func (m *memory) setFlag(flag programConfigFlag, on bool) {
	if on {
		atomic.OrUint32(&m.config.Flags, uint32(flag))
	} else {
		atomic.AndUint32(&m.config.Flags, ^uint32(flag))
	}
}

func (m *memory) hasFlag(flag programConfigFlag) bool {
	return atomic.LoadUint32(&m.config.Flags)&uint32(flag) != 0
}

// passedBy returns a CPU's counts of the frames that were passed up, by [Reason].
func (m *memory) passedBy(cpu int, side verdict.Side) []uint64 {
	return m.passed[cpu*countsOfCPU+int(side)*countsOfCPU/verdict.Sides:][:Reasons]
}

// monotonic returns the time on the clock of the programs, in nanoseconds.
func monotonic() uint64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // never fails
	return uint64(t.Nano())
}
