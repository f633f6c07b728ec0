package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// What the test binary is run as, by the environment: the maker of a sandbox,
// or the program itself in it.
const (
	sandboxStage = "FRAGWALL_TEST_SANDBOX"
	stageMake    = "make"
	stageRun     = "run"
)

func TestMain(m *testing.M) {
	switch os.Getenv(sandboxStage) {
	case stageMake:
		os.Exit(makeSandbox())
	case stageRun:
		os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// coverDirectory is the variable that names the directory for coverage data (go
// help testflag, -cover). A child that was built to collect them complains where
// it has none.
const coverDirectory = "GOCOVERDIR"

// sandboxed runs the command line without capabilities, without devices, and
// with a file system that is read-only but for the working directory and that for
// coverage data.
func sandboxed(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), sandboxStage+"="+stageMake)
	if testing.CoverMode() != "" && os.Getenv(coverDirectory) == "" {
		c.Env = append(c.Env, coverDirectory+"="+t.TempDir())
	}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	c.Stdout, c.Stderr = &out, &err
	runErr := c.Run()
	var exit *exec.ExitError
	if runErr != nil && !errors.As(runErr, &exit) || c.ProcessState.ExitCode() == exitNoSandbox {
		if os.Getenv("CI") != "" {
			t.Fatalf("no sandbox: %v: %s", runErr, err.String())
		}
		t.Skipf("no sandbox: %v: %s", runErr, err.String())
	}
	return c.ProcessState.ExitCode(), out.String(), err.String()
}

// exitNoSandbox is the exit code of a maker that failed.
const exitNoSandbox = 99

// makeSandbox mounts what the program is to see, and becomes the program, with
// no capabilities left. It returns only where it failed.
func makeSandbox() int {
	dir, err := os.Getwd()
	writableDirs := []string{dir}
	if cover := os.Getenv(coverDirectory); cover != "" {
		writableDirs = append(writableDirs, cover)
	}
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	writable := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	err = errors.Join(err,
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
	)
	for _, d := range writableDirs {
		err = errors.Join(err, unix.Mount(d, d, "", unix.MS_BIND, ""))
	}
	err = errors.Join(err, unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &readOnly))
	for _, d := range writableDirs {
		err = errors.Join(err, unix.MountSetattr(unix.AT_FDCWD, d, 0, &writable))
	}
	if _, missing := os.Stat("/dev/net/tun"); missing == nil {
		err = errors.Join(err, unix.Mount("/dev/null", "/dev/net/tun", "", unix.MS_BIND, ""))
	}
	if err == nil {
		err = os.Chdir(dir) // into the mount that is writable
	}
	runtime.LockOSThread() // what follows is a thread's, and stays with what it executes
	err = errors.Join(err,
		unix.Prctl(unix.PR_SET_SECUREBITS, securebitNoRoot, 0, 0, 0),
		os.Setenv(sandboxStage, stageRun),
	)
	if err == nil {
		err = unix.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	return exitNoSandbox
}

// securebitNoRoot has the user id 0 come with no capabilities (SECBIT_NOROOT,
// capabilities(7)).
const securebitNoRoot = 1

// TestReplayNeedsNoRights replays where nothing but the outputs can be written
// and there is no device to open.
func TestReplayNeedsNoRights(t *testing.T) {
	inDir(t)
	fragments := numbered(client4, server4, 3000, 1).Fragments(1480)
	writeCapture(t, "fragments", packettest.Arrivals(0, verdict.Inside, fragments...))
	args := strings.Fields("replay -c policy.toml --from inside -o out --dropped dropped fragments")
	if code, stdout, stderr := sandboxed(t, args...); code != 0 || stderr != "" || !strings.Contains(strings.Join(strings.Fields(stdout), " "), " reassembled 1 judged 1 ") {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	out, err := os.Open("out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if left, _ := readFrames(t, out); len(left) != len(fragments) {
		t.Errorf("%d frames left", len(left))
	}

	elsewhere := t.TempDir() + "/out"
	args = strings.Fields("replay -c policy.toml --from inside -o " + elsewhere + " in.pcap")
	want := fmt.Sprintf("fragwall: create %q: read-only file system\n", elsewhere)
	if code, _, stderr := sandboxed(t, args...); code != 1 || stderr != want {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestReplayNeedsPermission(t *testing.T) {
	inDir(t)
	if err := os.Chmod("in.pcap", 0); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := sandboxed(t, strings.Fields("replay -c policy.toml --from inside -o out in.pcap")...)
	if code != 1 || stderr != "fragwall: open \"in.pcap\": permission denied\n" {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
