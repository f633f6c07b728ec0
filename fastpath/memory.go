package fastpath

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// memory is what the programs and user space share (bpf/layout.h). It stays mapped
// for as long as anything refers to it, also once the maps are closed.
type memory struct {
	config    *programConfig
	common    *programShared
	slots     []programSlot // by number; 0 is none
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
	configs, err := mapArray[programConfig](m, maps.Configs)
	if err != nil {
		return err
	}
	common, err := mapArray[programShared](m, maps.Common)
	if err != nil {
		return err
	}
	m.config, m.common = &configs[0], &common[0]
	if m.slots, err = mapArray[programSlot](m, maps.Slots); err != nil {
		return err
	}
	if m.fragments, err = mapArray[programFragmentSlot](m, maps.Fragments); err != nil {
		return err
	}
	if m.orders, err = mapArray[programOrder](m, maps.Orders); err != nil {
		return err
	}
	if m.totals, err = mapArray[programTotals](m, maps.CpuTotals); err != nil {
		return err
	}
	m.passed, err = mapArray[uint64](m, maps.Passed)
	return err
}

// mapArray maps the values of an array, until m is not referred to any more.
func mapArray[T any](m *memory, array *ebpf.Map) ([]T, error) {
	var value T
	size, n := int(unsafe.Sizeof(value)), int(array.MaxEntries())
	if size != int(array.ValueSize()) || size%8 != 0 {
		return nil, fmt.Errorf("%v: values of %d bytes, want %d", array, array.ValueSize(), size)
	}
	page := unix.Getpagesize()
	b, err := unix.Mmap(array.FD(), 0, (size*n+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", array, err)
	}
	runtime.AddCleanup(m, func(b []byte) { _ = unix.Munmap(b) }, b)
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

// setFlag sets or clears a flag of the configuration.
func (m *memory) setFlag(flag programConfigFlag, on bool) {
	if on {
		atomic.OrUint32(&m.config.Flags, uint32(flag))
	} else {
		atomic.AndUint32(&m.config.Flags, ^uint32(flag))
	}
}

// monotonic returns the time that the programs read, in nanoseconds.
func monotonic() uint64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // never fails
	return uint64(t.Nano())
}
