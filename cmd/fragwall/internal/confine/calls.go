package confine

import (
	"runtime"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// calls are the system calls that anything may be done with: what they work on
// was opened before, or is opened by those that Landlock watches over.
var calls = []string{
	// the datapath, and who asks about it
	"read", "write", "readv", "writev", "pread64", "pwrite64", "close", "ioctl", "fcntl", "io_uring_enter",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "pipe2", "poll", "ppoll",
	"accept", "accept4", "bind", "getsockname", "getpeername", "getsockopt", "setsockopt", "shutdown", // bind: of netlink
	"sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg",
	// memory, threads, time and signals, for Go's runtime and the C library
	"mmap", "munmap", "mprotect", "mremap", "madvise", "mincore", "brk", "futex", "sched_yield", "sched_getaffinity",
	"exit", "exit_group", "getpid", "gettid", "tgkill", "set_robust_list", "rseq", "membarrier", "restart_syscall",
	"nanosleep", "clock_nanosleep", "clock_gettime", "gettimeofday", "timer_create", "timer_settime", "timer_delete", "setitimer",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack", "getrandom", "uname",
	"getuid", "geteuid", "getgid", "getegid", "getrlimit", "prlimit64", "getrusage", "sysinfo",
	// files: rules and sets, sockets that go, what a sidecar keeps
	"openat", "fstat", "newfstatat", "statx", "lseek", "getdents64", "readlinkat", "faccessat", "faccessat2", "getcwd",
	"unlink", "unlinkat", "rmdir", "mkdirat", "renameat", "renameat2", "fchmod", "fchmodat", "fsync", "ftruncate", "flock",
	"inotify_add_watch", "inotify_rm_watch",
}

// Operations of io_uring_register that a ring needs which is there already
// (include/uapi/linux/io_uring.h).
const (
	ringUnregisterFiles = 3
	ringEnable          = 12
)

// argument allows a call where one of its arguments is a value.
func argument(call string, number uint32, value uint64) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: call, Conditions: seccomp.ArgumentConditions{
		{Argument: number, Operation: seccomp.Equal, Value: value},
	}}
}

// conditional are the system calls that few things may be done with.
var conditional = []seccomp.NameWithConditions{
	argument("socket", 0, unix.AF_NETLINK), // for teardown, and to watch links
	argument("io_uring_register", 1, ringUnregisterFiles),
	argument("io_uring_register", 1, ringEnable),
	argument("prctl", 0, unix.PR_SET_VMA), // the runtime names its memory
	argument("prctl", 0, unix.PR_SET_NAME),
	{Name: "clone", Conditions: seccomp.ArgumentConditions{ // threads
		{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD},
	}},
}

// filterCalls leaves all threads those system calls. Others fail with EPERM,
// and clone3, whose flags a filter can't see, with ENOSYS, on which the C
// library takes clone.
func filterCalls() error {
	known, err := arch.GetInfo(runtime.GOARCH)
	if err != nil {
		return err
	}
	var names []string
	for _, name := range calls {
		if _, ok := known.SyscallNames[name]; ok { // some are of other architectures
			names = append(names, name)
		}
	}
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionErrno,
			Syscalls: []seccomp.SyscallGroup{
				{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: conditional},
				{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
			},
		},
	})
}
