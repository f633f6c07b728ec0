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

// Values of the environment variable sandboxStage. The test binary then sets up a sandbox, or
// runs as fragwall inside it.
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

// coverDirectory is the variable that names the directory for coverage data (go help testflag,
// -cover). A binary that was built for coverage prints a warning without it.
const coverDirectory = "GOCOVERDIR"

// sandboxed runs the command line without capabilities and without /dev/net/tun. All file
// systems are read-only, except for the working directory and the one for coverage data.
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

// exitNoSandbox is the exit code if the sandbox could not be set up.
const exitNoSandbox = 99

// makeSandbox sets up the mounts, drops all capabilities and executes fragwall. It returns only
// on failure.
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
		err = os.Chdir(dir) // enter the writable mount
	}
	runtime.LockOSThread() // securebits are per thread, and kept by execve of that thread
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

// securebitNoRoot makes execve grant no capabilities to user ID 0 (SECBIT_NOROOT,
// capabilities(7)).
const securebitNoRoot = 1

// TestReplayNeedsNoRights replays in a sandbox in which only the outputs are writable and no
// device can be opened.
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
		t.Errorf("%d frames were forwarded", len(left))
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
