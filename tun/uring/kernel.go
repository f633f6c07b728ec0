package uring

import "golang.org/x/sys/unix"

// The part of the kernel's io_uring interface that the lanes use. Names and layouts are those
// of include/uapi/linux/io_uring.h.

// Flags of io_uring_params.flags.
const (
	setupCQSize       = 1 << 3  // IORING_SETUP_CQSIZE
	setupDisabled     = 1 << 6  // IORING_SETUP_R_DISABLED
	setupSubmitAll    = 1 << 7  // IORING_SETUP_SUBMIT_ALL, Linux 5.18
	setupSingleIssuer = 1 << 12 // IORING_SETUP_SINGLE_ISSUER, Linux 6.0
	setupDeferTaskrun = 1 << 13 // IORING_SETUP_DEFER_TASKRUN, Linux 6.1
	setupNoSQArray    = 1 << 16 // IORING_SETUP_NO_SQARRAY, Linux 6.6
)

// featureSingleMmap is a flag of io_uring_params.features: both queues are in one mapping
// (IORING_FEAT_SINGLE_MMAP, Linux 5.4).
const featureSingleMmap = 1 << 0

// Offsets for mmap(2) of a ring's descriptor.
const (
	offsetQueues = 0          // IORING_OFF_SQ_RING
	offsetSQEs   = 0x10000000 // IORING_OFF_SQES
)

// Flags of io_uring_enter.
const (
	enterGetEvents        = 1 << 0 // IORING_ENTER_GETEVENTS: wait for completions
	enterExtendedArgument = 1 << 3 // IORING_ENTER_EXT_ARG, Linux 5.11: the argument is an enterArgument
)

// Operations of io_uring_register.
const (
	registerFiles       = 2  // IORING_REGISTER_FILES
	unregisterFiles     = 3  // IORING_UNREGISTER_FILES
	registerProbe       = 8  // IORING_REGISTER_PROBE
	registerRestriction = 11 // IORING_REGISTER_RESTRICTIONS
	registerEnableRings = 12 // IORING_REGISTER_ENABLE_RINGS
	registerBufferRing  = 22 // IORING_REGISTER_PBUF_RING, Linux 5.19
)

// The kinds of a restriction.
const (
	restrictRegister = 0 // IORING_RESTRICTION_REGISTER_OP
	restrictOp       = 1 // IORING_RESTRICTION_SQE_OP
	restrictFlags    = 2 // IORING_RESTRICTION_SQE_FLAGS_ALLOWED
)

// Operations of a submission.
const (
	opWritev        = 2  // IORING_OP_WRITEV
	opPollAdd       = 6  // IORING_OP_POLL_ADD
	opAsyncCancel   = 14 // IORING_OP_ASYNC_CANCEL
	opWrite         = 23 // IORING_OP_WRITE
	opReadMultishot = 49 // IORING_OP_READ_MULTISHOT, Linux 6.7
)

// Flags of io_uring_sqe.flags.
const (
	sqeFixedFile    = 1 << 0 // IOSQE_FIXED_FILE: fd is an index of the registered files
	sqeBufferSelect = 1 << 5 // IOSQE_BUFFER_SELECT: a buffer of the group buf_group
)

// Flags of an IORING_OP_ASYNC_CANCEL.
const (
	cancelAll = 1 << 0 // IORING_ASYNC_CANCEL_ALL
	cancelAny = 1 << 2 // IORING_ASYNC_CANCEL_ANY
)

// Flags of io_uring_cqe.flags.
const (
	cqeBuffer      = 1 << 0 // IORING_CQE_F_BUFFER: the high 16 bits are a buffer's number
	cqeMore        = 1 << 1 // IORING_CQE_F_MORE: the operation continues
	cqeBufferShift = 16     // IORING_CQE_BUFFER_SHIFT
)

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries uint32
	flags                uint32
	sqThreadCPU          uint32
	sqThreadIdle         uint32
	features             uint32
	wqFD                 uint32
	_                    [3]uint32
	sq                   struct { // struct io_sqring_offsets
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cq struct { // struct io_cqring_offsets
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
}

// sqe is struct io_uring_sqe, a submission.
type sqe struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off           uint64
	addr          uint64
	length        uint32
	opFlags       uint32 // rw_flags, poll32_events, cancel_flags
	userData      uint64
	bufferGroup   uint16
	personality   uint16
	fileIndex     int32
	_             [2]uint64
}

// cqe is struct io_uring_cqe, a completion.
type cqe struct {
	userData uint64
	result   int32 // bytes, or a negative error number
	flags    uint32
}

// err returns the error of a completion, or nil.
func (c *cqe) err() error {
	if c.result < 0 {
		return unix.Errno(-c.result)
	}
	return nil
}

// enterArgument is struct io_uring_getevents_arg.
type enterArgument struct {
	_       [2]uint64
	timeout uint64 // the address of a timespec
}

// timespec is struct __kernel_timespec.
type timespec struct{ seconds, nanoseconds int64 }

// buffer is struct io_uring_buf, an entry of a ring of provided buffers. In the first entry, the
// field resv holds the ring's tail.
type buffer struct {
	addr   uint64
	length uint32
	id     uint16
	tail   uint16
}

// bufferRegistration is struct io_uring_buf_reg.
type bufferRegistration struct {
	ringAddr    uint64
	ringEntries uint32
	group       uint16
	flags       uint16
	_           [3]uint64
}

// restriction is struct io_uring_restriction: an operation or a flag that stays allowed.
type restriction struct {
	about uint16
	what  uint8
	_     uint8
	_     [3]uint32
}

// probe is struct io_uring_probe, with room for the operations up to the last that is used here.
type probe struct {
	lastOp, opsLen uint8
	_              uint16
	_              [3]uint32
	ops            [opReadMultishot + 1]struct {
		op, _ uint8
		flags uint16 // probeSupported
		_     uint32
	}
}

// probeSupported is IO_URING_OP_SUPPORTED.
const probeSupported = 1 << 0
