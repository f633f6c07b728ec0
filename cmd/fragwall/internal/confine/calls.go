package confine

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// calls are the system calls that anything may be done with: what they work on
// was opened before, or is opened by those that Landlock watches over. Those
// that change a file's mode are not among them: Landlock does not watch them.
var calls = []string{
	// the datapath, and who asks about it
	"read", "write", "readv", "writev", "pread64", "pwrite64", "close", "io_uring_enter",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "pipe2", "poll", "ppoll",
	"accept", "accept4", "bind", "getsockname", "getpeername", "getsockopt", "setsockopt", "shutdown", "recvfrom", // bind: of netlink
	// memory, threads, time and signals, for Go's runtime and the C library
	"munmap", "mremap", "madvise", "mincore", "brk", "futex", "sched_yield", "sched_getaffinity",
	"exit", "exit_group", "getpid", "gettid", "set_robust_list", "rseq", "membarrier", "restart_syscall",
	"nanosleep", "clock_nanosleep", "clock_gettime", "gettimeofday", "timer_create", "timer_settime", "timer_delete", "setitimer",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack", "getrandom", "uname",
	"getuid", "geteuid", "getgid", "getegid", "getrlimit", "getrusage", "sysinfo",
	// files: rules and sets, sockets that go, what a sidecar keeps; of arm64's
	// fstatat the name is newfstatat on amd64
	"openat", "fstat", "fstatat", "newfstatat", "statx", "lseek", "getdents64", "readlinkat", "faccessat", "faccessat2", "getcwd",
	"unlinkat", "renameat", "renameat2", "fsync", "inotify_add_watch", "inotify_rm_watch",
}

// Operations of io_uring_register that a ring needs which is there already
// (include/uapi/linux/io_uring.h).
const (
	ringUnregisterFiles = 3
	ringEnable          = 12
)

// conditions are of a call's arguments, and have all to hold.
type conditions []condition

// condition is of one argument.
type condition struct {
	argument uint32
	test     test
	value    uint64
}

type test int

const (
	equals test = iota
	has         // one of the value's bits, of which there are 32
	hasNot      // any of them
)

// argument allows a call where one of its arguments is one of some values.
func argument(number uint32, values ...uint64) (allowed []conditions) {
	for _, v := range values {
		allowed = append(allowed, conditions{{number, equals, v}})
	}
	return allowed
}

// conditional returns the system calls that few things may be done with: where
// one of the conditions of each holds.
func (p Plan) conditional() map[string][]conditions {
	self := argument(0, uint64(os.Getpid())) // others of the user are out of reach
	limited := map[string][]conditions{
		// For teardown, to watch links, and for ethtool.
		"socket": {
			{{0, equals, unix.AF_NETLINK}, {2, equals, unix.NETLINK_ROUTE}},
			{{0, equals, unix.AF_NETLINK}, {2, equals, unix.NETLINK_GENERIC}},
		},
		// By MSG_FASTOPEN, sending connects.
		"sendto":  argument(3, 0),
		"sendmsg": argument(2, 0), // descriptors go by it to a process that takes over
		// For a process that takes over, by which it knows whether this one lives.
		"pidfd_open": argument(0, uint64(os.Getpid())),
		// Set-up and teardown of a TAP, and a NIC's offloads; not what puts
		// input into a terminal, nor who is to get signals.
		"ioctl": argument(1, unix.TUNSETIFF, unix.TUNSETOWNER, unix.TUNSETGROUP, unix.TUNSETPERSIST,
			unix.TUNSETOFFLOAD, unix.TUNSETSNDBUF, unix.TUNSETCARRIER, unix.SIOCETHTOOL),
		"fcntl":     argument(1, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_DUPFD_CLOEXEC),
		"tgkill":    self,
		"kill":      self, // when the runtime crashes
		"prlimit64": argument(0, 0),
		"prctl":     argument(0, unix.PR_SET_VMA, unix.PR_SET_NAME), // the runtime names its memory
		"clone":     {{{0, has, unix.CLONE_THREAD}}},
		// All the code there is to be is there.
		"mmap":              {{{2, hasNot, unix.PROT_EXEC}}},
		"mprotect":          {{{2, hasNot, unix.PROT_EXEC}}},
		"io_uring_register": argument(1, ringUnregisterFiles, ringEnable),
	}
	if p.FastPath {
		// Of programs and maps that are loaded. LINK_CREATE attaches a program to a
		// NIC that came back, for which the kernel wants no capability.
		limited["bpf"] = argument(0, unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_MAP_DELETE_ELEM,
			unix.BPF_MAP_LOOKUP_BATCH, unix.BPF_MAP_UPDATE_BATCH, unix.BPF_MAP_DELETE_BATCH, unix.BPF_LINK_CREATE)
	}
	return limited
}

// Offsets in struct seccomp_data (seccomp(2)), of whose arguments the low word
// comes first on all machines that this runs on.
const (
	offsetNumber    = 0
	offsetMachine   = 4
	offsetArguments = 16
)

// filterCalls leaves all threads those system calls.
func (p Plan) filterCalls() error {
	instructions, err := p.filter()
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(instructions)
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	switch {
	case errno != 0:
		return errno
	case thread != 0:
		return fmt.Errorf("thread %d has a filter of its own", thread)
	}
	return nil
}

// filter returns the program that the kernel runs for each system call. Calls
// that are not allowed fail with EPERM, and clone3, whose flags a filter can't
// see, with ENOSYS, on which the C library takes clone.
func (p Plan) filter() ([]bpf.Instruction, error) {
	machine, err := arch.GetInfo(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	denied, unknown := failWith(unix.EPERM), failWith(unix.ENOSYS)
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetMachine, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(machine.ID), SkipTrue: 1},
		denied,
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
	}
	// on has a block decide on a call. The block always does, so that what comes
	// behind it still has the number loaded.
	on := func(name string, block ...bpf.Instruction) {
		if number, ok := machine.SyscallNames[name]; ok { // some are of other machines
			program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(number), SkipFalse: uint8(len(block))})
			program = append(program, block...)
		}
	}
	for _, name := range calls {
		on(name, allowed)
	}
	for name, alternatives := range p.conditional() {
		var block []bpf.Instruction
		for _, c := range alternatives {
			block = append(block, c.instructions()...)
		}
		on(name, append(block, denied)...)
	}
	on("clone3", unknown)
	return append(program, denied), nil
}

var allowed = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}

func failWith(errno unix.Errno) bpf.RetConstant {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// instructions allow the call where the conditions hold, and go on behind
// themselves where not.
func (c conditions) instructions() []bpf.Instruction {
	block := []bpf.Instruction{allowed}
	for _, one := range slices.Backward(c) { // so that what to skip is known
		away := uint8(len(block))
		low := bpf.LoadAbsolute{Off: offsetArguments + 8*one.argument, Size: 4}
		high := bpf.LoadAbsolute{Off: low.Off + 4, Size: 4}
		value := uint32(one.value)
		switch one.test {
		case equals:
			block = append([]bpf.Instruction{
				high, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(one.value >> 32), SkipFalse: away + 2},
				low, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipFalse: away},
			}, block...)
		case has:
			block = append([]bpf.Instruction{low, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: value, SkipFalse: away}}, block...)
		case hasNot:
			block = append([]bpf.Instruction{low, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: value, SkipTrue: away}}, block...)
		}
	}
	return block
}
