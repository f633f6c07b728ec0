package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"fragwall/integration/lab"
)

// program is the fragwall under attack.
var program string

// boxConfig is the policy of bridgeRules.
const boxConfig = `
[inside]
tap = "fw-in"
nic = "nic-in"
[outside]
tap = "fw-out"
nic = "nic-out"
[fragments]
mode = %q
[policy]
default = "drop"
stateful = true
[[rule]]
name = "datagrams"
action = "accept"
protocol = "udp"
dst_port = [%d, %d, %d]
[[rule]]
name = "stream"
action = "accept"
protocol = "tcp"
dst_port = %d
`

// box is fragwall under way.
type box struct {
	network *lab.Network
	dir     string
	process *os.Process
	output  output
	ended   chan error
}

// newBox starts fragwall in a mode and waits until frames flow.
func newBox(n *lab.Network, mode string) (_ running, err error) {
	b := &box{network: n, ended: make(chan error, 1)}
	if b.dir, err = os.MkdirTemp("", "fragwall-attack"); err != nil {
		return nil, err
	}
	path := filepath.Join(b.dir, "fragwall.toml")
	config := fmt.Sprintf(boxConfig, mode, datagramPort, echoPort, harmlessPort, streamPort)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	c := exec.Command(program, "run", "-c", path)
	c.Stderr = &b.output
	b.output.ready = make(chan struct{})
	if err := start(n.Middle, c, b.ended); err != nil {
		return nil, err
	}
	b.process = c.Process
	select {
	case <-b.output.ready:
		return b, nil
	case err := <-b.ended:
		return nil, fmt.Errorf("fragwall ended at once: %v: %s", err, b.output.text())
	case <-time.After(readyPatience):
		_, err := b.down()
		return nil, fmt.Errorf("fragwall is not ready: %v: %s", err, b.output.text())
	}
}

const readyPatience = 10 * time.Second

// start starts a process in a namespace. Should this program die, so does the
// process; how it ended goes to ended.
func start(ns *lab.Namespace, c *exec.Cmd, ended chan<- error) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		_ = ns.Do(func() error { // whose thread has to outlive the process
			err := c.Start()
			started <- err
			if err == nil {
				ended <- c.Wait()
			}
			return nil
		})
	}()
	return <-started
}

// output keeps what a process writes, and tells when it is ready.
type output struct {
	mu    sync.Mutex
	all   bytes.Buffer
	ready chan struct{} // closed then
	told  bool
}

// Write implements [io.Writer].
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Write(b)
	if !o.told && bytes.Contains(o.all.Bytes(), []byte("ready")) {
		o.told = true
		close(o.ready)
	}
	return len(b), nil
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// memory implements [running]: the resident set (proc(5), VmRSS).
func (b *box) memory() int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// cpu implements [running] (proc(5), utime and stime, in hundredths).
func (b *box) cpu() (float64, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.process.Pid))
	if err != nil {
		return 0, true
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return float64(user+system) / 100, true
}

// lost implements [running]: what did not fit the queue of the inside TAP.
func (b *box) lost() (frames uint64) {
	_ = b.network.Middle.Do(func() error {
		link, err := netlink.LinkByName("fw-in")
		if err == nil {
			frames = link.Attrs().Statistics.TxDropped
		}
		return err
	})
	return frames
}

// down implements [running].
func (b *box) down() (string, error) {
	defer os.RemoveAll(b.dir)
	_ = b.process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case err := <-b.ended:
		return b.output.text(), err
	case <-time.After(readyPatience):
		_ = b.process.Kill()
		return b.output.text(), fmt.Errorf("fragwall does not end: %v", <-b.ended)
	}
}
