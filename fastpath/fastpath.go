package fastpath

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// ErrUnavailable is wrapped if the kernel does not support a fast path.
var ErrUnavailable = errors.New("no fast path")

// FastPath carries out verdicts in the kernel.
type FastPath struct {
	objects programObjects
	memory  *memory
	options Options
	zero    atomic.Uint64 // zero of the policy's clock, see monotonic

	generation atomic.Uint32                // of the policy in force
	table      atomic.Pointer[filter.Table] // of that policy
	watched    atomic.Pointer[func(*flow.Key) bool]
	drops      atomic.Uint32 // Drops
	denied     atomic.Int32  // entries that drop in a stateful policy
	mapErrors  atomic.Uint64
	known      fingerprints

	// attaching is held while programs are attached or detached. The kernel takes a grace period
	// for each, during which lanes must not wait: they only need mu, which is taken after it.
	attaching sync.Mutex
	links     [verdict.Sides][]link.Link // guarded by attaching
	owned     [verdict.Sides]bool        // the links are not another process's; guarded by attaching
	inherited *inherited                 // from another process; nil if there is none; immutable

	mu sync.Mutex // taken after the lock of a part of the flow table, and not held while calling it
	// mu guards:
	entries
	counts  [verdict.Sides]wire.FastCounts
	orders  orders
	scanned int // where the upkeep of fragments continues
	closed  bool
}

var _ wire.FastPath = (*FastPath)(nil)

// Open loads the programs and makes the memory that they share with user space. It attaches
// nothing yet. The error says what is missing: it wraps [ErrUnavailable] if the kernel lacks
// support, and EPERM or EACCES if the process lacks the privilege.
func Open(o Options) (*FastPath, error) {
	o.complete()
	if err := probe(); err != nil {
		return nil, err
	}
	spec, err := loadProgram()
	if err != nil {
		return nil, err
	}
	spec.Maps[programMapFlows].MaxEntries = uint32(o.Entries)
	spec.Maps[programMapSlots].MaxEntries = uint32(o.Entries) + 1
	spec.Maps[programMapFragments].MaxEntries = uint32(o.Entries)
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	spec.Maps[programMapCpuTotals].MaxEntries = uint32(cpus)
	spec.Maps[programMapPassed].MaxEntries = uint32(cpus * countsOfCPU)
	f := &FastPath{options: o}
	if err := f.load(spec); err != nil {
		return nil, err
	}
	f.configure()
	f.entries.init(o.Entries)
	return f, nil
}

// load loads the programs, with the maps of another process if there are any, and maps the memory.
func (f *FastPath) load(spec *ebpf.CollectionSpec) (err error) {
	if f.inherited, err = inherit(f.options.From, spec); err != nil {
		return err
	}
	var o ebpf.CollectionOptions
	if in := f.inherited; in != nil {
		defer in.closeMaps()
		f.links, f.orders.lent, o.MapReplacements = in.links, true, in.maps
	}
	if err = spec.LoadAndAssign(&f.objects, &o); err == nil {
		f.memory, err = share(&f.objects.programMaps)
	} else {
		err = explain(err)
	}
	if err != nil {
		_ = f.objects.Close()
		for side := range verdict.Side(verdict.Sides) {
			f.closeLinks(side)
		}
	}
	return err
}

// configure fills in the configuration of the programs.
func (f *FastPath) configure() {
	c := f.memory.config
	if in := f.inherited; in != nil {
		c.Secret = in.Secret
	} else {
		var secret [16]byte
		_, _ = rand.Read(secret[:]) // never fails
		c.Secret = [2]uint64{binary.NativeEndian.Uint64(secret[:]), binary.NativeEndian.Uint64(secret[8:])}
	}
	c.Timeout = [2]uint64{uint64(f.options.TimeoutIPv4), uint64(f.options.TimeoutIPv6)}
	c.FragmentMask = uint32(len(f.memory.fragments) - 1)
	c.MaxFragments = uint32(f.options.MaxFragments)
	f.memory.setFlag(programConfigFlagDROP_FRAGMENTS, f.options.Mode == packet.ModeDrop)
	f.memory.setFlag(programConfigFlagVALIDATE, f.options.Mode == packet.ModeValidate)
	f.SetDrops(f.options.Drops)
	f.memory.setFlag(programConfigFlagRUNNING, true)
}

// probe checks whether the kernel has TCX and lets the process attach to it.
func probe() error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, Instructions: nothing, License: "Apache-2.0",
	})
	if err != nil {
		return explain(err)
	}
	defer program.Close()
	// The kernel checks that the interface exists after everything else.
	_, err = link.AttachTCX(link.TCXOptions{Interface: math.MaxInt32, Program: program, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return explain(err)
}

// explain adds what an operator can do.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("load eBPF: %w: CAP_BPF or CAP_NET_ADMIN is missing, or a seccomp profile denies bpf(2)", err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel is built without eBPF: %w", ErrUnavailable, err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: TCX (Linux 6.6) is missing: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Start sets the zero of the policy's clock.
func (f *FastPath) Start(started time.Time) {
	f.zero.Store(monotonic() - uint64(time.Since(started)))
}

// now returns the time on the policy's clock.
func (f *FastPath) now() time.Duration { return time.Duration(monotonic() - f.zero.Load()) }

// SetPolicy sets the policy in force. It returns once no verdict of an older policy is applied.
func (f *FastPath) SetPolicy(t *filter.Table) {
	if f.isClosed() {
		return
	}
	m := f.memory
	flags := atomic.LoadUint32(&m.config.Flags)
	stateful := flags&uint32(programConfigFlagSTATEFUL) != 0
	anyVLANs := flags&uint32(programConfigFlagANY_VLANS) != 0
	f.table.Store(t)
	f.generation.Store(t.Generation())
	atomic.StoreUint32(&m.config.Generation, t.Generation())
	if stateful != t.Stateful() || anyVLANs != t.AnyVLANs() {
		f.retireAll() // keys and ways now mean something else
		m.setFlag(programConfigFlagSTATEFUL, t.Stateful())
		m.setFlag(programConfigFlagANY_VLANS, t.AnyVLANs())
	}
	if anyVLANs != t.AnyVLANs() {
		f.unsettleOrders() // the hash now selects other orders
	}
	grace()
}

// grace returns once no program is still running that was running when grace was called:
// MEMBARRIER_CMD_GLOBAL waits for all lock-free readers in the kernel.
func grace() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL, membarrier(2)
	if _, _, err := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); err != 0 {
		time.Sleep(pause)
	}
}

// pause is longer than any program runs.
const pause = 100 * time.Millisecond

// SetDrops sets how frames are dropped.
func (f *FastPath) SetDrops(d Drops) {
	was := Drops(f.drops.Swap(uint32(d)))
	f.memory.setFlag(programConfigFlagSAMPLE_DROPS, d == DropSampled)
	f.memory.setFlag(programConfigFlagDROP_FRAGMENTS, d != DropNone && f.options.Mode == packet.ModeDrop)
	if d == DropNone && was != DropNone {
		f.retireDrops()
	}
}

// Watch makes the frames of the flows that match go through the TAP while it is set; nil ends
// that.
func (f *FastPath) Watch(match func(*flow.Key) bool) {
	if match == nil {
		f.watched.Store(nil)
		return
	}
	f.watched.Store(&match)
	f.retireMatching(match)
}

func (f *FastPath) isWatched(k *flow.Key) bool {
	match := f.watched.Load()
	return match != nil && (*match)(k)
}

func (f *FastPath) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// Close detaches the programs. Counters may still be read, and include all frames.
func (f *FastPath) Close() error {
	f.attaching.Lock()
	defer f.attaching.Unlock()
	for side := range verdict.Side(verdict.Sides) {
		f.detach(side)
	}
	f.mu.Lock()
	closed := f.closed
	f.closed = true
	f.mu.Unlock()
	if closed {
		return nil
	}
	f.memory.setFlag(programConfigFlagRUNNING, false)
	grace()
	return f.objects.Close()
}
