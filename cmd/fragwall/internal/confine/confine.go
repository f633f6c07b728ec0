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

// Plan is what a process may access in addition to what every box needs. Paths that do not
// exist are ignored.
type Plan struct {
	Read   []string // directories whose files may be read
	Remove []string // directories whose files may be removed
	Keep   []string // directories whose files may be created, changed and removed
	// Devices may be opened and configured, such as /dev/net/tun for TAPs.
	Devices []string
	// FastPath says that the fast path is loaded. The process may still use its maps and attach
	// its programs.
	FastPath bool
}

// kernelSettings is the directory with the sysctls that teardown restores.
const kernelSettings = "/proc/sys/net"

// Apply drops all rights that the plan does not need, permanently. A right that cannot be
// dropped is logged as a warning.
func Apply(p Plan, log *slog.Logger) {
	_, _ = time.Now().Zone() // loads /etc/localtime, which cannot be read afterwards
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

// kept are the capabilities that teardown needs.
const kept = 1 << unix.CAP_NET_ADMIN

// dropCapabilities drops all capabilities of all threads except kept, which stays if the
// process has it. The inheritable set becomes empty, and with it the ambient set. The bounding
// set stays: with no_new_privs no program gains a capability from it, and dropping forty
// capabilities from it on each thread would delay readiness by half a second on a busy machine.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	want := [2]unix.CapUserData{{Effective: have[0].Effective & kept, Permitted: have[0].Permitted & kept}}
	header.Pid = 0 // the calling thread
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

// Access rights for the directories of a plan.
const (
	reading   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	removing  = landlock.AccessFSSet(ll.AccessFSRemoveFile | ll.AccessFSRemoveDir)
	keeping   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSRemoveFile)
	setting   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate)
	operating = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSIoctlDev)
)

// restrictFiles restricts the process to the files of the plan, and forbids TCP. It does not
// restrict signals, because the runtime sends them between threads.
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

// existing returns the paths that exist.
func existing(paths ...string) []string {
	var there []string
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			there = append(there, path)
		}
	}
	return there
}
