package middle

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"fragwall/tun/lab"
)

// Sides holds the configuration tables [inside] and [outside] for [NewBox].
const Sides = `
[inside]
tap = "` + insideTAP + `"
nic = "` + lab.InsideNIC + `"
[outside]
tap = "fw-out"
nic = "` + lab.OutsideNIC + `"
`

// SidecarSides holds the configuration tables [inside] and [outside] for [NewSidecar].
const SidecarSides = `
[inside]
tap = "` + insideTAP + `"
[outside]
tap = "fw-out"
`

const insideTAP = "fw-in"

// Box is a running fragwall process.
type Box struct {
	ns      *lab.Namespace
	dir     string
	process *os.Process
	output  *Output
	ended   chan error
}

// NewBox starts `fragwall run` in the middle namespace and waits until it is ready. The
// configuration must contain [Sides].
func NewBox(n *lab.Network, program, config string) (*Box, error) {
	return newBox(n.Middle, program, config, func(string) []string { return []string{"run"} })
}

// NewSidecar starts `fragwall sidecar` in a host's namespace and waits until it is ready. The
// configuration must contain [SidecarSides].
func NewSidecar(h *lab.Host, program, config string) (*Box, error) {
	return newBox(h.Namespace, program, config, func(dir string) []string { return []string{"sidecar", "--nic", h.NIC, "--state", dir} })
}

// newBox starts the program in a namespace. command returns its arguments, given its temporary
// directory.
func newBox(ns *lab.Namespace, program, config string, command func(dir string) []string) (*Box, error) {
	b := &Box{ns: ns, output: NewOutput("ready"), ended: make(chan error, 1)}
	var err error
	if b.dir, err = os.MkdirTemp("", "fragwall-middle"); err != nil {
		return nil, err
	}
	path := filepath.Join(b.dir, "fragwall.toml")
	c := exec.Command(program, append(command(b.dir), "-c", path)...)
	c.Stderr = b.output
	if err = os.WriteFile(path, []byte(config), 0o600); err == nil {
		err = Start(ns, AnyCPU, c, b.ended)
	}
	if err != nil {
		_ = os.RemoveAll(b.dir)
		return nil, err
	}
	b.process = c.Process
	if err := b.output.Await(b.ended); err != nil {
		_ = b.process.Kill() // fails if the process has ended
		_ = os.RemoveAll(b.dir)
		return nil, fmt.Errorf("fragwall: %w", err)
	}
	return b, nil
}

// Memory returns the resident memory of the process in bytes (VmRSS in /proc/pid/status, proc(5)).
func (b *Box) Memory() int64 {
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

// CPU returns the CPU time of the process in seconds (utime and stime in /proc/pid/stat, in
// hundredths of a second, proc(5)), and true.
func (b *Box) CPU() (float64, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.process.Pid))
	if err != nil {
		return 0, true
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return float64(user+system) / 100, true
}

// Lost returns the number of frames that the queue of the inside TAP dropped.
func (b *Box) Lost() (frames uint64) {
	_ = b.ns.Do(func() error {
		link, err := netlink.LinkByName(insideTAP)
		if err == nil {
			frames = link.Attrs().Statistics.TxDropped
		}
		return err
	})
	return frames
}

// Down stops the process with SIGTERM, and returns its output.
func (b *Box) Down() (string, error) {
	defer os.RemoveAll(b.dir)
	_ = b.process.Signal(syscall.SIGTERM) // fails if the process has ended
	select {
	case err := <-b.ended:
		return b.output.String(), err
	case <-time.After(processTimeout):
		_ = b.process.Kill()
		return b.output.String(), fmt.Errorf("fragwall did not end within %v of SIGTERM: %v", processTimeout, <-b.ended)
	}
}
