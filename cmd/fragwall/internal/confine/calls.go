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

// calls are the system calls that are allowed with any arguments. They work on files that are
// already open, or that Landlock allows to open. Calls that change the mode of a file are not
// among them, because Landlock does not restrict them.
var calls = []string{
	// the datapath, and its clients
	"read", "write", "readv", "writev", "pread64", "pwrite64", "close", "io_uring_enter",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "pipe2", "poll", "ppoll",
	"accept", "accept4", "bind", "getsockname", "getpeername", "getsockopt", "setsockopt", "shutdown", "recvfrom", // bind: for netlink
	// memory, threads, time and signals, for Go's runtime and the C library
	"munmap", "mremap", "madvise", "mincore", "brk", "futex", "sched_yield", "sched_getaffinity",
	"exit", "exit_group", "getpid", "gettid", "set_robust_list", "rseq", "membarrier", "restart_syscall",
	"nanosleep", "clock_nanosleep", "clock_gettime", "gettimeofday", "timer_create", "timer_settime", "timer_delete", "setitimer",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack", "getrandom", "uname",
	"getuid", "geteuid", "getgid", "getegid", "getrlimit", "getrusage", "sysinfo",
	// files: rules and sets, removal of sockets, state of a sidecar; fstatat of arm64 is called
	// newfstatat on amd64
	"openat", "fstat", "fstatat", "newfstatat", "statx", "lseek", "getdents64", "readlinkat", "faccessat", "faccessat2", "getcwd",
	"unlinkat", "renameat", "renameat2", "fsync", "inotify_add_watch", "inotify_rm_watch",
}

// Operations of io_uring_register that an existing ring needs (include/uapi/linux/io_uring.h).
const (
	ringUnregisterFiles = 3
	ringEnable          = 12
)

// conditions are conditions on the arguments of a call. All of them must hold.
type conditions []condition

// condition is a condition on one argument.
type condition struct {
	argument uint32
	test     test
	value    uint64
}

type test int

const (
	equals test = iota
	has         // at least one of the bits in value, which has 32
	hasNot      // none of the bits in value
)

// argument allows a call if an argument has one of the given values.
func argument(number uint32, values ...uint64) (allowed []conditions) {
	for _, v := range values {
		allowed = append(allowed, conditions{{number, equals, v}})
	}
	return allowed
}

// conditional returns the system calls that are allowed only with certain arguments. One of the
// conditions of a call must hold.
func (p Plan) conditional() map[string][]conditions {
	self := argument(0, uint64(os.Getpid())) // not to other processes of the user
	limited := map[string][]conditions{
		// For teardown, link monitoring and ethtool.
		"socket": {
			{{0, equals, unix.AF_NETLINK}, {2, equals, unix.NETLINK_ROUTE}},
			{{0, equals, unix.AF_NETLINK}, {2, equals, unix.NETLINK_GENERIC}},
		},
		// No flags: with MSG_FASTOPEN, a send connects.
		"sendto":  argument(3, 0),
		"sendmsg": argument(2, 0), // also passes descriptors to a process that takes over
		// For a process that takes over: it monitors this process by the descriptor.
		"pidfd_open": argument(0, uint64(os.Getpid())),
		// Setup and teardown of a TAP, and offloads of a NIC. Requests that insert terminal
		// input or redirect signals are not allowed.
		"ioctl": argument(1, unix.TUNSETIFF, unix.TUNSETOWNER, unix.TUNSETGROUP, unix.TUNSETPERSIST,
			unix.TUNSETOFFLOAD, unix.TUNSETSNDBUF, unix.TUNSETCARRIER, unix.SIOCETHTOOL),
		"fcntl":     argument(1, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_DUPFD_CLOEXEC),
		"tgkill":    self,
		"kill":      self, // used by the runtime when it crashes
		"prlimit64": argument(0, 0),
		"prctl":     argument(0, unix.PR_SET_VMA, unix.PR_SET_NAME), // the runtime names its memory areas
		"clone":     {{{0, has, unix.CLONE_THREAD}}},
		// No further code may be mapped.
		"mmap":              {{{2, hasNot, unix.PROT_EXEC}}},
		"mprotect":          {{{2, hasNot, unix.PROT_EXEC}}},
		"io_uring_register": argument(1, ringUnregisterFiles, ringEnable),
	}
	if p.FastPath {
		// Operations on loaded programs and maps. LINK_CREATE attaches a program to a NIC that
		// reappeared, LINK_DETACH detaches one from a NIC, and LINK_UPDATE restores one after a
		// failed hand-over. The kernel requires no capability for them.
		limited["bpf"] = argument(0, unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_MAP_DELETE_ELEM,
			unix.BPF_MAP_LOOKUP_BATCH, unix.BPF_MAP_UPDATE_BATCH, unix.BPF_MAP_DELETE_BATCH,
			unix.BPF_LINK_CREATE, unix.BPF_LINK_UPDATE, unix.BPF_LINK_DETACH)
	}
	return limited
}

// Offsets in struct seccomp_data (seccomp(2)). The low word of an argument comes first, because
// all supported machines are little-endian.
const (
	offsetNumber    = 0
	offsetMachine   = 4
	offsetArguments = 16
)

// filterCalls restricts all threads to the allowed system calls.
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

// filter returns the program that the kernel runs for each system call. Calls that are not
// allowed fail with EPERM. clone3 fails with ENOSYS, because a filter cannot read its flags;
// the C library then uses clone.
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
	// on appends a block that decides on one call. The block always decides, so the call number
	// stays loaded for the next one.
	on := func(name string, block ...bpf.Instruction) {
		if number, ok := machine.SyscallNames[name]; ok { // some names exist only on other machines
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

// instructions returns a block that allows the call if the conditions hold, and otherwise
// continues after the block.
func (c conditions) instructions() []bpf.Instruction {
	block := []bpf.Instruction{allowed}
	for _, one := range slices.Backward(c) { // last first, because a jump needs the length of what it skips
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
