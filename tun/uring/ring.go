package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is one io_uring (io_uring(7)): a queue of submissions and a queue of completions, shared
// with the kernel. It is created disabled. Until it is enabled, any thread may use it, one at a
// time; after that, only the thread that enabled it.
type ring struct {
	fd      int
	queues  []byte // mapping of both queues' indices and of the completions
	entries []byte // mapping of the submissions

	submitHead, submitTail *uint32
	submissions            []sqe
	tail                   uint32 // of the submissions, including those that the kernel was not told of yet

	completeHead, completeTail *uint32
	completions                []cqe

	timeout enterArgument // the argument of wait
	longest timespec      // to which it points
}

// newRing makes a ring with room for the given numbers of submissions and completions, both
// powers of two.
func newRing(submissions, completions uint32) (*ring, error) {
	p := params{
		flags: setupCQSize | setupDisabled | setupSubmitAll | setupSingleIssuer |
			setupDeferTaskrun | setupNoSQArray,
		cqEntries: completions,
	}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(submissions), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", explainRing(errno))
	}
	r := &ring{fd: int(fd)}
	r.timeout.timeout = uint64(uintptr(unsafe.Pointer(&r.longest)))
	if err := r.setUp(&p); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// explainRing adds to an error what an operator can do, or has configured.
func explainRing(errno unix.Errno) error {
	switch errno {
	case unix.ENOSYS:
		return fmt.Errorf("%w: the kernel is built without it, or a seccomp profile hides it", errno)
	case unix.EPERM, unix.EACCES:
		return fmt.Errorf("%w: by the sysctl kernel.io_uring_disabled, a seccomp profile or a security module", errno)
	case unix.EINVAL:
		return fmt.Errorf("%w: the kernel is older than 6.7", errno)
	case unix.ENOMEM:
		return fmt.Errorf("%w: out of memory, or of what RLIMIT_MEMLOCK lets this user lock", errno)
	}
	return errno
}

// setUp maps the queues, and checks that the kernel supports the operations.
func (r *ring) setUp(p *params) error {
	if p.features&featureSingleMmap == 0 {
		return fmt.Errorf("io_uring_setup: %w", explainRing(unix.EINVAL))
	}
	const shared = unix.MAP_SHARED | unix.MAP_POPULATE
	const readWrite = unix.PROT_READ | unix.PROT_WRITE
	var err error
	size := int(p.cq.cqes) + int(p.cqEntries)*int(unsafe.Sizeof(cqe{}))
	if r.queues, err = unix.Mmap(r.fd, offsetQueues, size, readWrite, shared); err != nil {
		return fmt.Errorf("map io_uring: %w", err)
	}
	size = int(p.sqEntries) * int(unsafe.Sizeof(sqe{}))
	if r.entries, err = unix.Mmap(r.fd, offsetSQEs, size, readWrite, shared); err != nil {
		return fmt.Errorf("map io_uring: %w", err)
	}
	r.submitHead = (*uint32)(unsafe.Pointer(&r.queues[p.sq.head]))
	r.submitTail = (*uint32)(unsafe.Pointer(&r.queues[p.sq.tail]))
	r.submissions = unsafe.Slice((*sqe)(unsafe.Pointer(&r.entries[0])), p.sqEntries)
	r.completeHead = (*uint32)(unsafe.Pointer(&r.queues[p.cq.head]))
	r.completeTail = (*uint32)(unsafe.Pointer(&r.queues[p.cq.tail]))
	r.completions = unsafe.Slice((*cqe)(unsafe.Pointer(&r.queues[p.cq.cqes])), p.cqEntries)

	var ops probe
	if err := r.register(registerProbe, unsafe.Pointer(&ops), len(ops.ops)); err != nil {
		return err
	}
	if ops.lastOp < opReadMultishot || ops.ops[opReadMultishot].flags&probeSupported == 0 {
		return fmt.Errorf("io_uring: no multishot reads: %w", explainRing(unix.EINVAL))
	}
	return r.register(registerRestriction, unsafe.Pointer(&allowed), len(allowed))
}

// allowed lists all operations of an enabled ring. A seccomp filter does not see what a ring
// does for the process: without this restriction, a process that may not open a socket could
// open one through its ring.
var allowed = [...]restriction{
	{about: restrictOp, what: opReadMultishot},
	{about: restrictOp, what: opWrite},
	{about: restrictOp, what: opWritev},
	{about: restrictOp, what: opPollAdd},
	{about: restrictOp, what: opAsyncCancel},
	{about: restrictFlags, what: sqeFixedFile | sqeBufferSelect},
	{about: restrictRegister, what: unregisterFiles},
}

// register performs a register operation.
func (r *ring) register(op uintptr, arg unsafe.Pointer, n int) error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), op, uintptr(arg), uintptr(n), 0, 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_register %d: %w", op, explainRing(errno))
	}
	return nil
}

// next returns a cleared submission to fill in. It goes to the kernel at the next enter. There
// must be room: see [ring.pending].
func (r *ring) next() *sqe {
	s := &r.submissions[r.tail&uint32(len(r.submissions)-1)]
	*s = sqe{}
	r.tail++
	return s
}

// pending returns the number of submissions that the kernel has not taken yet.
func (r *ring) pending() uint32 { return r.tail - atomic.LoadUint32(r.submitHead) }

// enter passes the submissions to the kernel, lets it work, and waits for the given number of
// completions. It may return early.
func (r *ring) enter(wait int) error { return r.call(wait, 0, nil, 0) }

// wait is enter for one completion. Its error wraps [unix.ETIME] if there is none in time.
func (r *ring) wait(timeout time.Duration) error {
	r.longest = timespec{seconds: int64(timeout / time.Second), nanoseconds: int64(timeout % time.Second)}
	return r.call(1, enterExtendedArgument, unsafe.Pointer(&r.timeout), unsafe.Sizeof(r.timeout))
}

func (r *ring) call(wait int, flags uintptr, arg unsafe.Pointer, size uintptr) error {
	atomic.StoreUint32(r.submitTail, r.tail)
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.pending()), uintptr(wait), enterGetEvents|flags, uintptr(arg), size)
	switch errno {
	case 0, unix.EINTR, unix.EAGAIN, unix.EBUSY: // for the last two, the completions must be taken first
		return nil
	}
	return fmt.Errorf("io_uring_enter: %w", errno)
}

// pop returns the next completion, if there is one.
func (r *ring) pop() (c cqe, ok bool) {
	head := atomic.LoadUint32(r.completeHead)
	if head == atomic.LoadUint32(r.completeTail) {
		return cqe{}, false
	}
	c = r.completions[head&uint32(len(r.completions)-1)]
	atomic.StoreUint32(r.completeHead, head+1)
	return c, true
}

// close closes the ring. The kernel cancels operations in progress, possibly later.
func (r *ring) close() error {
	for _, m := range [][]byte{r.queues, r.entries} {
		if m != nil {
			_ = unix.Munmap(m) // fails only if m is not a mapping
		}
	}
	if err := unix.Close(r.fd); err != nil {
		return fmt.Errorf("close io_uring: %w", err)
	}
	return nil
}
