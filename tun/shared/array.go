package shared

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Array maps the values of an eBPF array that was made with BPF_F_MMAPABLE (Linux 5.5) into this
// process, and returns them. The memory stays mapped until owner is unreachable, even after the
// map is closed. Array returns an error unless the size of T is the array's value size and a
// multiple of 8 bytes.
func Array[T, O any](owner *O, array *ebpf.Map) ([]T, error) {
	var value T
	size, n := int(unsafe.Sizeof(value)), int(array.MaxEntries())
	if size != int(array.ValueSize()) || size%8 != 0 {
		return nil, fmt.Errorf("%v: values of %d bytes, want %d", array, array.ValueSize(), size)
	}
	page := unix.Getpagesize()
	b, err := unix.Mmap(array.FD(), 0, (size*n+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%v: map memory: %w", array, err)
	}
	runtime.AddCleanup(owner, func(b []byte) { _ = unix.Munmap(b) }, b)
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}
