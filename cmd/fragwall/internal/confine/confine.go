package confine

import (
	"fmt"
	"log/slog"
	"os"
	"time"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Plan is what remains to a process beside what every box needs. Directories that are
// not there are left out.
type Plan struct {
	Read   []string // directories beneath which files may be read
	Remove []string // directories beneath which files may be removed
	Keep   []string // directories beneath which files may be made, changed and removed
	// Devices may be opened and set up, as TAPs are made by /dev/net/tun.
	Devices []string
	// FastPath says that programs and maps of the fast path are loaded: the process
	// keeps the operations on them, and the right to attach them.
	FastPath bool
}

// kernelSettings is where teardown sets back what the set-up changed.
const kernelSettings = "/proc/sys/net"

// Apply takes away what the plan does not need, for good.
func Apply(p Plan, log *slog.Logger) {
	_, _ = time.Now().Zone() // reads /etc/localtime, which is out of reach from now on
	for _, step := range []struct {
		what string
		take func() error
	}{
		{"capabilities", dropCapabilities},
		{"no_new_privs", forbidNewPrivileges},
		{"landlock", p.restrictFiles},
		{"seccomp", p.filterCalls},
	} {
		if err := step.take(); err != nil {
			log.Warn("the process keeps rights that it does not need", "lacking", step.what, "error", err)
		}
	}
}

// capabilities that teardown needs.
const kept = 1 << unix.CAP_NET_ADMIN

// dropCapabilities drops all capabilities of all threads but those kept, where
// the process has them. None is inheritable then, and so none is ambient. The
// bounding set stays: under no_new_privs no program gets anything of it, and
// to take forty capabilities from it, one by one from each thread, keeps a busy
// machine from getting ready for half a second.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	want := [2]unix.CapUserData{{Effective: have[0].Effective & kept, Permitted: have[0].Permitted & kept}}
	header.Pid = 0 // each thread's own
	err := onAll(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&want[0])))
	if err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

func forbidNewPrivileges() error { return onAll(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1) }

// onAll makes a system call on each thread.
func onAll(call, first, second uintptr) error {
	if _, _, errno := psx.Syscall6(call, first, second, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// What may be done beneath the directories of a plan.
const (
	reading   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	removing  = landlock.AccessFSSet(ll.AccessFSRemoveFile | ll.AccessFSRemoveDir)
	keeping   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSRemoveFile)
	setting   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate)
	operating = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSIoctlDev)
)

// restrictFiles leaves the process the files of the plan. Signals are left
// alone: the runtime sends them from thread to thread.
func (p Plan) restrictFiles() error {
	if _, err := ll.LandlockGetABIVersion(); err != nil {
		return fmt.Errorf("the kernel has no Landlock: %w", err)
	}
	rules := []landlock.Rule{
		landlock.PathAccess(reading|setting, existing(kernelSettings)...),
		landlock.PathAccess(operating, existing(p.Devices...)...),
	}
	for access, directories := range map[landlock.AccessFSSet][]string{reading: p.Read, removing: p.Remove, keeping: p.Keep} {
		rules = append(rules, landlock.PathAccess(access, existing(directories...)...))
	}
	kernel := landlock.V7.BestEffort()
	if err := kernel.RestrictPaths(rules...); err != nil {
		return err
	}
	return kernel.RestrictNet()
}

// existing returns those of the paths that are there.
func existing(paths ...string) []string {
	var there []string
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			there = append(there, path)
		}
	}
	return there
}
