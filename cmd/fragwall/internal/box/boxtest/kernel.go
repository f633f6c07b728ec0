package boxtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/tun"
	"fragwall/tun/link"
	"fragwall/tun/netdev"
	"fragwall/tun/tuntest"
)

// Kernel is a kernel in memory.
type Kernel struct {
	messages chan syscall.NetlinkMessage

	mu sync.Mutex
	// mu guards:
	devices   map[int]*netdev.Link // by index
	ports     map[string]*Port
	junctions map[string]*Junction // last junction of each NIC, by its name
	bypassed  []link.NIC
	fastPath  *FastPath // the one opened last
	failures  map[string]error
}

// New returns a kernel without devices.
func New() *Kernel {
	return &Kernel{
		messages: make(chan syscall.NetlinkMessage, 64), devices: map[int]*netdev.Link{}, ports: map[string]*Port{},
		junctions: map[string]*Junction{}, failures: map[string]error{},
	}
}

// Box returns the kernel in the form that a box uses.
func (k *Kernel) Box() *box.Kernel {
	return &box.Kernel{
		OpenPort: k.openPort, ImportPort: k.importPort, ImportJunction: k.importJunction, Vacant: func(string) error { return k.failure("vacant") }, NICMTU: k.nicMTU, Join: k.join,
		Bypass: k.bypass, ReadLink: k.readLink, FindLink: k.findLink, SetLink: k.setLink, DisableIPv6: func(int) error { return nil }, Follow: k.follow,
		OpenFastPath: k.openFastPath,
	}
}

// Fail makes an operation fail with an error, or work again if err is nil. operation is the
// name of the function with a lower-case initial.
func (k *Kernel) Fail(operation string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failures[operation] = err
}

func (k *Kernel) failure(operation string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failures[operation]
}

// AddNIC adds a NIC that is up, and returns its index.
func (k *Kernel) AddNIC(name string, mtu int) int {
	k.mu.Lock()
	index := k.add(netdev.Link{Name: name, Up: true, Carrier: true, MTU: mtu})
	k.mu.Unlock()
	k.notify(index)
	return index
}

// add adds a device with the next index. The caller holds mu.
func (k *Kernel) add(l netdev.Link) int {
	l.Index = 1
	for index := range k.devices {
		l.Index = max(l.Index, index+1)
	}
	k.devices[l.Index] = &l
	return l.Index
}

// Change changes a device and notifies followers.
func (k *Kernel) Change(index int, change func(*netdev.Link)) {
	k.mu.Lock()
	change(k.devices[index])
	k.mu.Unlock()
	k.notify(index)
}

// Remove removes a device and notifies followers.
func (k *Kernel) Remove(index int) {
	k.mu.Lock()
	delete(k.devices, index)
	k.mu.Unlock()
	k.notify(index)
}

// notify sends a message about a device.
func (k *Kernel) notify(index int) {
	data := make([]byte, 8)
	binary.NativeEndian.PutUint32(data[4:], uint32(index))
	k.messages <- syscall.NetlinkMessage{Data: data}
}

// Link returns the state of a device.
func (k *Kernel) Link(index int) netdev.Link {
	k.mu.Lock()
	defer k.mu.Unlock()
	return *k.devices[index]
}

// Port returns the port with a name, or nil if none was opened.
func (k *Kernel) Port(name string) *Port {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ports[name]
}

// Junction returns the last junction of a NIC, or nil.
func (k *Kernel) Junction(nic string) *Junction {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.junctions[nic]
}

// Bypassed returns the NICs that were joined to each other.
func (k *Kernel) Bypassed() []link.NIC {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bypassed
}

// Port is a port with an interface index. It can be made to fail.
type Port struct {
	*tuntest.Port
	Config tun.Config // configuration that it was opened with
	index  int
	failed atomic.Bool
	lanes  []tun.Lane
}

// Index returns the interface index.
func (p *Port) Index() int { return p.index }

// Lanes returns the only lane to another Port.
func (p *Port) Lanes(to tun.Port) (lanes []tun.Lane, err error) {
	p.lanes, err = p.Port.Lanes(to.(*Port).Port)
	for _, l := range p.lanes {
		lanes = append(lanes, &lane{l, p})
	}
	return lanes, err
}

// Fail makes every later Read from the port fail.
func (p *Port) Fail() {
	p.failed.Store(true)
	for _, l := range p.lanes {
		_ = l.Close() // wakes the Read
	}
}

// lane is a lane of a Port.
type lane struct {
	tun.Lane
	from *Port
}

// Read fails once the port has failed.
func (l *lane) Read() ([]tun.Frame, error) {
	frames, err := l.Lane.Read()
	if l.from.failed.Load() {
		return nil, fmt.Errorf("read %q: the device failed", l.from.Name())
	}
	return frames, err
}

// Fallbacks implements [tun.Port]. It reports that io_uring is not used.
func (p *Port) Fallbacks() []tun.Fallback {
	return []tun.Fallback{{Level: slog.LevelInfo, Message: "a system call each", Err: fmt.Errorf("port %q: in memory", p.Name())}}
}

func (k *Kernel) openPort(c tun.Config) (tun.Port, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.failures["openPort"]; err != nil {
		return nil, err
	}
	p := &Port{Port: tuntest.NewPort(c.Name), Config: c, index: k.add(netdev.Link{Name: c.Name, Up: true, Carrier: true, MTU: c.MTU})}
	k.ports[c.Name] = p
	return p, nil
}

// importPort returns the existing port with a name in a new Port. Frames keep passing.
func (k *Kernel) importPort(c tun.Config, _ tun.Exported) (tun.Port, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.failures["importPort"]; err != nil {
		return nil, err
	}
	p := &Port{Port: k.ports[c.Name].Port, index: k.ports[c.Name].index}
	k.ports[c.Name] = p
	return p, nil
}

func (k *Kernel) nicMTU(name string) (int, error) {
	l, err := k.findLink(name)
	return l.MTU, err
}

// Junction is a NIC that is joined to a port.
type Junction struct {
	kernel *Kernel
	link.Config
	port int // interface index of the port

	// the kernel's mu guards:
	broken, closed, detached bool
}

func (k *Kernel) join(c link.Config) (box.Junction, int, error) {
	l, err := k.findLink(c.NIC)
	if err == nil {
		err = k.failure("join")
	}
	if err != nil {
		return nil, 0, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	j := &Junction{kernel: k, Config: c, port: k.ports[c.TAP].index}
	k.junctions[c.NIC] = j
	return j, l.Index, nil
}

// Break simulates that another process removes the junction.
func (j *Junction) Break() { j.set(&j.broken, true) }

// Closed reports whether the junction was closed.
func (j *Junction) Closed() bool {
	j.kernel.mu.Lock()
	defer j.kernel.mu.Unlock()
	return j.closed
}

func (j *Junction) set(what *bool, to bool) {
	j.kernel.mu.Lock()
	defer j.kernel.mu.Unlock()
	*what = to
}

// Devices implements [box.Junction]. It returns the port.
func (j *Junction) Devices() []int { return []int{j.port} }

// Intact implements [box.Junction].
func (j *Junction) Intact() (bool, error) {
	j.kernel.mu.Lock()
	defer j.kernel.mu.Unlock()
	return !j.broken, nil
}

// Redirected implements [box.Junction]. It reports whether no bridge is used.
func (j *Junction) Redirected() bool { return j.Bridge == "" }

// Repair implements [box.Junction]. It undoes Break.
func (j *Junction) Repair() error { j.set(&j.broken, false); return j.kernel.failure("repair") }

// SetMTU implements [box.Junction].
func (j *Junction) SetMTU(mtu int) error {
	j.kernel.mu.Lock()
	defer j.kernel.mu.Unlock()
	j.MTU = mtu
	return j.kernel.failures["setMTU"]
}

// Export implements [box.Junction].
func (j *Junction) Export() link.Exported {
	l, _ := j.kernel.findLink(j.NIC)
	return link.Exported{NIC: l.Index, TAP: j.port, Addressed: j.Addressed, MTU: j.MTU}
}

func (k *Kernel) importJunction(e link.Exported) (box.Junction, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.failures["importJunction"]; err != nil {
		return nil, err
	}
	c := link.Config{TAP: k.devices[e.TAP].Name, MTU: e.MTU, Addressed: e.Addressed}
	if nic := k.devices[e.NIC]; nic != nil {
		c.NIC = nic.Name
	}
	j := &Junction{kernel: k, Config: c, port: e.TAP}
	k.junctions[c.NIC] = j
	return j, nil
}

// Detach implements [box.Junction].
func (j *Junction) Detach() error { j.set(&j.detached, true); return nil }

// Close implements [box.Junction].
func (j *Junction) Close() error { j.set(&j.closed, true); return nil }

func (k *Kernel) bypass(a, b link.NIC) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bypassed = []link.NIC{a, b}
	return k.failures["bypass"]
}

func (k *Kernel) readLink(index int) (netdev.Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.devices[index]; l != nil {
		return *l, k.failures["readLink"]
	}
	return netdev.Link{}, fmt.Errorf("device %d: %w", index, netdev.ErrMissing)
}

func (k *Kernel) findLink(name string) (netdev.Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.devices {
		if l.Name == name {
			return *l, nil
		}
	}
	return netdev.Link{}, fmt.Errorf("device %q: %w", name, netdev.ErrMissing)
}

func (k *Kernel) setLink(index int, up bool) error {
	if err := k.failure("setLink"); err != nil {
		return err
	}
	k.Change(index, func(l *netdev.Link) { l.Up, l.Carrier = up, up })
	return nil
}

func (k *Kernel) follow(ctx context.Context, _ *slog.Logger, take func([]syscall.NetlinkMessage), _ ...uint) {
	take(nil)
	for {
		select {
		case m := <-k.messages:
			take([]syscall.NetlinkMessage{{}, m})
		case <-ctx.Done():
			return
		}
	}
}
