package confine

import (
	"os"
	"runtime"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
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
	"mmap", "munmap", "mprotect", "mremap", "madvise", "mincore", "brk", "futex", "sched_yield", "sched_getaffinity",
	"exit", "exit_group", "getpid", "gettid", "set_robust_list", "rseq", "membarrier", "restart_syscall",
	"nanosleep", "clock_nanosleep", "clock_gettime", "gettimeofday", "timer_create", "timer_settime", "timer_delete", "setitimer",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack", "getrandom", "uname",
	"getuid", "geteuid", "getgid", "getegid", "getrlimit", "getrusage", "sysinfo",
	// files: rules and sets, sockets that go, what a sidecar keeps
	"openat", "fstat", "newfstatat", "statx", "lseek", "getdents64", "readlinkat", "faccessat", "faccessat2", "getcwd",
	"unlinkat", "inotify_add_watch", "inotify_rm_watch",
}

// Operations of io_uring_register that a ring needs which is there already
// (include/uapi/linux/io_uring.h).
const (
	ringUnregisterFiles = 3
	ringEnable          = 12
)

// argument allows a call where one of its arguments is one of some values.
func argument(call string, number uint32, values ...uint64) (allowed []seccomp.NameWithConditions) {
	for _, v := range values {
		allowed = append(allowed, seccomp.NameWithConditions{Name: call, Conditions: seccomp.ArgumentConditions{
			{Argument: number, Operation: seccomp.Equal, Value: v},
		}})
	}
	return allowed
}

// conditional returns the system calls that few things may be done with.
func conditional() []seccomp.NameWithConditions {
	return slices.Concat(
		[]seccomp.NameWithConditions{
			// For teardown, to watch links, and for ethtool.
			netlinkSocket(unix.NETLINK_ROUTE), netlinkSocket(unix.NETLINK_GENERIC),
			{Name: "clone", Conditions: seccomp.ArgumentConditions{ // threads
				{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD},
			}},
		},
		// By MSG_FASTOPEN, sending connects.
		argument("sendto", 3, 0),
		// Set-up and teardown of a TAP, and a NIC's offloads; not what puts
		// input into a terminal, nor who is to get signals.
		argument("ioctl", 1, unix.TUNSETIFF, unix.TUNSETOWNER, unix.TUNSETGROUP, unix.TUNSETPERSIST,
			unix.TUNSETOFFLOAD, unix.TUNSETSNDBUF, unix.SIOCETHTOOL),
		argument("fcntl", 1, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_DUPFD_CLOEXEC),
		// Other processes of the user are out of reach.
		argument("tgkill", 0, uint64(os.Getpid())),
		argument("kill", 0, uint64(os.Getpid())), // when the runtime crashes
		argument("prlimit64", 0, 0),
		argument("prctl", 0, unix.PR_SET_VMA, unix.PR_SET_NAME), // the runtime names its memory
		argument("io_uring_register", 1, ringUnregisterFiles, ringEnable),
	)
}

func netlinkSocket(protocol uint64) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: "socket", Conditions: seccomp.ArgumentConditions{
		{Argument: 0, Operation: seccomp.Equal, Value: unix.AF_NETLINK},
		{Argument: 2, Operation: seccomp.Equal, Value: protocol},
	}}
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
				{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: conditional()},
				{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
			},
		},
	})
}
