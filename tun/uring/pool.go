package uring

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pool is a ring of provided buffers: memory from which the kernel takes a buffer for each
// frame that it reads. The kernel reads the ring only in system calls of the ring's own thread,
// so that plain stores suffice.
type pool struct {
	memory []byte // the buffers, one after the other
	queue  []byte // mapping of free
	free   []buffer
	size   int // of a buffer, in bytes
	tail   uint16
}

// newPool returns a pool of count buffers, a power of two, of at least size bytes each. The kernel
// may use none of them until [pool.give].
func newPool(count, size int) (*pool, error) {
	// An odd number of cache lines. With a power of two, the headers of all frames would share
	// a few cache sets.
	const line = 64
	p := &pool{size: ((size+line-1)/line | 1) * line}
	var err error
	if p.memory, err = allocate(count * p.size); err != nil {
		return nil, err
	}
	if p.queue, err = allocate(count * int(unsafe.Sizeof(buffer{}))); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.free = unsafe.Slice((*buffer)(unsafe.Pointer(&p.queue[0])), count)
	return p, nil
}

// allocate returns zeroed memory outside the Go heap, aligned to pages, as the kernel requires.
func allocate(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("allocate %d bytes: %w", size, err)
	}
	return b, nil
}

// data returns the first n bytes of a buffer.
func (p *pool) data(id uint16, n int) []byte {
	return p.memory[int(id)*p.size:][:n:p.size]
}

// give lets the kernel use buffers again.
func (p *pool) give(ids []uint16) {
	mask := uint16(len(p.free) - 1)
	for i, id := range ids {
		b := &p.free[(p.tail+uint16(i))&mask]
		b.addr = uint64(uintptr(unsafe.Pointer(&p.memory[int(id)*p.size])))
		b.length = uint32(p.size)
		b.id = id
	}
	p.tail += uint16(len(ids))
	p.free[0].tail = p.tail
}

func (p *pool) close() error {
	var errs []error
	for _, m := range [][]byte{p.memory, p.queue} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	return errors.Join(errs...)
}
