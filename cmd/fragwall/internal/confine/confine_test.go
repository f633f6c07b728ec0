package confine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"fragwall/cmd/fragwall/internal/confine"
)

// confined is set in the process that confines itself. Its value is a directory.
const confined = "FRAGWALL_TEST_CONFINED"

func TestMain(m *testing.M) {
	if dir := os.Getenv(confined); dir != "" {
		os.Exit(tryEverything(dir))
	}
	os.Exit(m.Run())
}

// TestConfined runs the test binary as a process that confines itself, and tries operations
// that must fail and operations that must succeed.
func TestConfined(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"rules", "socket", "state", "elsewhere"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "file"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), confined+"="+dir)
	output, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, output)
	}
}

// tryEverything confines the process and returns its exit code.
func tryEverything(dir string) int {
	// Threads that exist before Apply, as those of the runtime do.
	var started, wait sync.WaitGroup
	release := make(chan struct{})
	failures := make(chan error, 1000)
	for range 4 {
		started.Add(1)
		wait.Go(func() {
			runtime.LockOSThread()
			started.Done()
			<-release
			try(dir, failures)
		})
	}
	started.Wait()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var log bytes.Buffer
	confine.Apply(confine.Plan{
		Read: []string{filepath.Join(dir, "rules")}, Remove: []string{filepath.Join(dir, "socket")}, Keep: []string{filepath.Join(dir, "state")}, Devices: []string{"/dev/net/tun"}, FastPath: true,
	}, slog.New(slog.NewTextHandler(&log, nil)))
	close(release)
	try(dir, failures)
	wait.Wait()
	once(dir, l, failures)
	statuses(failures)
	if log.Len() > 0 {
		failures <- errors.New(log.String())
	}
	close(failures)
	code := 0
	for f := range failures {
		fmt.Println(f)
		code = 1
	}
	return code
}

// try tries what any thread may and may not do.
func try(dir string, failures chan<- error) {
	denied := func(what string, err error) {
		if !errors.Is(err, fs.ErrPermission) {
			failures <- fmt.Errorf("%s: %v", what, err)
		}
	}
	allowed := func(what string, err error) {
		if err != nil {
			failures <- fmt.Errorf("%s: %w", what, err)
		}
	}
	_, err := os.ReadFile("/etc/shadow")
	denied("read /etc/shadow", err)
	_, err = os.ReadFile(filepath.Join(dir, "elsewhere", "file"))
	denied("read elsewhere", err)
	denied("write rules", os.WriteFile(filepath.Join(dir, "rules", "file"), nil, 0))
	denied("make a file", os.WriteFile(filepath.Join(dir, "rules", "new"), nil, 0o644))
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_UNIX, unix.AF_PACKET} {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW} {
			_, err = unix.Socket(family, kind, 0)
			denied(fmt.Sprintf("socket %d %d", family, kind), err)
		}
	}
	for _, protocol := range []int{unix.NETLINK_NETFILTER, unix.NETLINK_XFRM, unix.NETLINK_AUDIT} {
		_, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, protocol)
		denied(fmt.Sprintf("netlink %d", protocol), err)
	}
	denied("make rules writable", os.Chmod(filepath.Join(dir, "rules", "file"), 0o666))
	denied("kill another", unix.Kill(os.Getppid(), 0))
	denied("kill a thread of another", unix.Tgkill(os.Getppid(), os.Getppid(), 0))
	denied("limit another", unix.Prlimit(os.Getppid(), unix.RLIMIT_CORE, nil, &unix.Rlimit{}))
	_, err = unix.PidfdOpen(os.Getppid(), 0)
	denied("get a descriptor of another", err)
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	allowed("get a descriptor of itself", err)
	if err == nil {
		allowed("close", unix.Close(self))
	}
	denied("connect by sendmsg", unix.Sendmsg(-1, []byte("x"), nil, nil, unix.MSG_FASTOPEN))
	if err := unix.Sendmsg(-1, []byte("x"), nil, nil, 0); !errors.Is(err, unix.EBADF) {
		failures <- fmt.Errorf("sendmsg: %w", err)
	}
	_, err = unix.FcntlInt(0, unix.F_SETOWN, os.Getppid())
	denied("have another get signals", err)
	key := byte('x')
	for _, request := range []uintptr{unix.TIOCSTI, unix.TIOCSTI | 1<<32} { // the kernel uses only 32 bits
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, 0, request, uintptr(unsafe.Pointer(&key)))
		denied("type into the terminal", errno)
	}
	_, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	denied("map code", err)
	if page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON); err == nil {
		denied("make memory code", unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC))
		allowed("unmap", unix.Munmap(page))
	}
	denied("exec", exec.Command("/bin/true").Run())
	denied("execve", unix.Exec("/bin/true", []string{"true"}, nil))
	denied("ptrace", unix.PtraceAttach(os.Getppid()))
	denied("mount", unix.Mount("none", dir, "tmpfs", 0, ""))
	denied("unshare", unix.Unshare(unix.CLONE_NEWUSER))
	denied("setns", unix.Setns(0, 0))
	_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	denied("another ring", errno)

	for _, command := range []uintptr{unix.BPF_PROG_LOAD, unix.BPF_MAP_CREATE, unix.BPF_BTF_LOAD, unix.BPF_OBJ_PIN, unix.BPF_PROG_ATTACH, unix.BPF_PROG_GET_FD_BY_ID} {
		denied(fmt.Sprintf("bpf command %d", command), bpf(command))
	}
	for _, command := range []uintptr{unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_MAP_DELETE_ELEM, unix.BPF_LINK_CREATE, unix.BPF_LINK_UPDATE, unix.BPF_LINK_DETACH} {
		if err := bpf(command); !errors.Is(err, unix.EBADF) { // the error for the map, link or program
			failures <- fmt.Errorf("bpf command %d: %w", command, err)
		}
	}

	text, err := os.ReadFile(filepath.Join(dir, "rules", "file"))
	allowed("read rules", err)
	if err == nil && string(text) != "rules" {
		failures <- fmt.Errorf("read %q", text)
	}
	_, err = os.Stat(filepath.Join(dir, "rules", "file"))
	allowed("look at rules", err)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	allowed("netlink", err)
	if err == nil {
		allowed("close", unix.Close(fd))
	}
}

// bpf calls a command of bpf(2) with invalid descriptors.
func bpf(command uintptr) error {
	attributes := [32]int32{-1} // union bpf_attr: descriptor of a map or a program
	if command == unix.BPF_LINK_CREATE {
		attributes[2] = unix.BPF_TCX_INGRESS
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	return errno
}

// once tries what can be done only once.
func once(dir string, l net.Listener, failures chan<- error) {
	if err := os.Remove(filepath.Join(dir, "socket", "file")); err != nil {
		failures <- err
	}
	if err := replace(filepath.Join(dir, "state", "file")); err != nil {
		failures <- err
	}
	if tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err == nil {
		var nothing [unix.IFNAMSIZ + 24]byte // struct ifreq with no device type
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, tun.Fd(), unix.TUNSETIFF, uintptr(unsafe.Pointer(&nothing))); errno != unix.EINVAL {
			failures <- fmt.Errorf("ioctl of tun: %w", errno)
		}
		_ = tun.Close()
	} else if errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0 {
		failures <- err
	}
	if c, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, fs.ErrPermission) {
		failures <- fmt.Errorf("connect: %v, %v", c, err)
	}
	if raw, err := l.(*net.TCPListener).SyscallConn(); err != nil {
		failures <- err
	} else if err := raw.Control(func(fd uintptr) {
		// After a shutdown, the kernel would allow the socket to connect.
		_ = unix.Shutdown(int(fd), unix.SHUT_RDWR)
		to := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}
		if err := unix.Sendto(int(fd), []byte("x"), unix.MSG_FASTOPEN, to); !errors.Is(err, fs.ErrPermission) {
			failures <- fmt.Errorf("connect by sending: %v", err)
		}
	}); err != nil {
		failures <- err
	}
	// Threads that are created after Apply.
	done := make(chan struct{})
	for range 8 {
		go func() {
			runtime.LockOSThread()
			try(dir, failures)
			done <- struct{}{}
		}()
	}
	for range 8 {
		<-done
	}
}

// replace replaces a file durably.
func replace(path string) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("state")
	return errors.Join(err, f.Sync(), f.Close(), os.Rename(path+".new", path))
}

// statuses checks that /proc/self/status cannot be read, and that the process has no capabilities.
func statuses(failures chan<- error) {
	_, err := os.ReadFile("/proc/self/status")
	if !errors.Is(err, fs.ErrPermission) {
		failures <- fmt.Errorf("read /proc/self/status: %v", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); !errors.Is(err, fs.ErrPermission) && strings.Trim(fmt.Sprint(have), "[{}0 ]") != "" {
		failures <- fmt.Errorf("capabilities %v, %v", have, err)
	}
}
