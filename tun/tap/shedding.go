package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"fragwall/tun"
)

// By itself the kernel drops each frame that finds a queue full: of an overload of
// fragments a part of each datagram, and what is left of it is read in vain. A filter
// (TUNSETFILTEREBPF, Linux 4.16) sheds whole datagrams instead, before they cost the
// reader anything: while a queue holds more than a mark, it refuses the fragment with
// which a datagram begins, and then the others of that datagram. Sources with credit,
// of which datagrams were accepted, have a higher mark, so that a flood of others
// leaves room for them. It is the mark of whole packets, too, so that a flood of these
// costs datagrams no more than it costs whole packets.
//
// The filter counts the frames that go into a queue; the lane counts those that it
// has taken out. Their difference is the backlog, which is what the queue holds and
// what the lane has not reported so far.

const (
	// shedMark is the backlog in frames above which no further datagram is let in of a
	// source without credit, but for one in so many newcomers. Above openMark, whole
	// packets and datagrams with credit are refused as well: up to queueLength there is
	// room for the rest of the datagrams that were let in.
	shedMark     = queueLength - 2048
	openMark     = queueLength - 512
	newcomerBits = 4
	newcomers    = 1 << newcomerBits
	// quietMark is the backlog up to which the filter has nothing to do but to count,
	// unless it refused a datagram lately, and remembers nothing of what it lets in.
	quietMark = queueLength / 5
	// decisionBits is the binary logarithm of how many places for decisions there are. Of
	// the datagrams whose hashes share a place, the filter remembers the last two that it
	// let in and the last two that it refused. With one of each, two of 50 datagrams that
	// come at the same time would share a place once in 50 times, and one of both would be
	// cut; with two, it takes three of them, once in 200,000 times.
	decisionBits = 16
	// decisionShift is the binary logarithm of the unit of time in ns, about 1 ms.
	decisionShift = 20
	// newcomerShift is the binary logarithm of after how much time, in the same units,
	// other datagrams are the newcomers.
	newcomerShift = 8

	// creditBits is the binary logarithm of how many credits there are. Sources whose
	// hashes share a place share one.
	creditBits = 16
	// creditEarned is how many further datagrams a datagram that was accepted earns its
	// source above shedMark, and creditMost how many there can be.
	creditEarned, creditMost = 16, 256
)

// decisionTime is how long a decision on a datagram holds, in units of
// 1<<decisionShift ns: longer than the fragments of a datagram take to arrive, and
// shorter than a fast sender takes to come back to an identification of 16 bits. Tests
// make it longer.
var decisionTime int32 = 250

// Fields of a place for decisions, in bytes: of each kind the last decision and the one
// before it.
const (
	admitted     = 0
	refused      = 16
	decisionsEnd = 32

	olderDecision = 8 // of the same kind
)

// Fields of what the filter and a lane share about a queue, in bytes. The lane's
// are in a cache line of their own.
const (
	countedIn   = 0  // frames that went into the queue
	countedShed = 8  // frames that were refused for their datagram
	lastRefusal = 16 // when a datagram was refused for the last time; 0 where none that was still counts
	countedOut  = 64 // frames that the lane took out
	countersEnd = 128
)

// noShedding says that a TAP has no filter.
func noShedding(err error) tun.Fallback {
	return tun.Fallback{
		Level:   slog.LevelInfo,
		Message: "in an overload the taps drop single fragments instead of whole datagrams",
		Err:     err,
	}
}

// shed has the kernel refuse whole datagrams while a queue is long. A TAP that
// can't have the filter does without.
func (t *TAP) shed() error {
	counters, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "fragwall_queues", Type: ebpf.Array, Flags: unix.BPF_F_MMAPABLE,
		KeySize: 4, ValueSize: countersEnd, MaxEntries: uint32(t.config.Queues),
	})
	if err != nil {
		return explainEBPF("create map", err)
	}
	shared := &sheddingMemory{counters: counters, key: shedHashKey}
	defer func() {
		if t.shared == nil {
			_ = shared.close()
		}
	}()
	decisions, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "fragwall_shed", Type: ebpf.Array, KeySize: 4, ValueSize: decisionsEnd, MaxEntries: 1 << decisionBits,
	})
	if err != nil {
		return explainEBPF("create map", err)
	}
	defer decisions.Close()
	shared.credits, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "fragwall_credit", Type: ebpf.Array, Flags: unix.BPF_F_MMAPABLE, KeySize: 4, ValueSize: 8, MaxEntries: 1 << creditBits,
	})
	if err != nil {
		return explainEBPF("create map", err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "fragwall_shed",
		Type:         ebpf.SocketFilter,
		Instructions: shedding(shedHashKey, counters.FD(), decisions.FD(), shared.credits.FD()),
	})
	if err != nil {
		return explainEBPF("load eBPF", err)
	}
	defer program.Close() // the device keeps it
	if err := shared.mapAll(); err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(t.queues[0], unix.TUNSETFILTEREBPF, program.FD()); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	t.shared = shared
	return nil
}

// shedHashKey makes the places of datagrams and sources unpredictable.
var shedHashKey = rand.Uint64()

// sheddingMemory is what a filter shares with lanes, and with another process that goes
// on with the device.
type sheddingMemory struct {
	key               uint64    // of the filter, see shedHashKey
	counters, credits *ebpf.Map // of each queue, countersEnd bytes; of sources, 8 bytes each
	counts, credit    *ebpf.Memory
}

// mapAll maps the memory of the maps.
func (m *sheddingMemory) mapAll() (err error) {
	if m.counts, err = m.counters.Memory(); err != nil {
		return fmt.Errorf("map counters: %w", err)
	}
	if m.credit, err = m.credits.Memory(); err != nil {
		return fmt.Errorf("map credits: %w", err)
	}
	return nil
}

// close closes the maps. Their memory stays for as long as a lane refers to it.
func (m *sheddingMemory) close() error {
	var errs []error
	for _, one := range []*ebpf.Map{m.counters, m.credits} {
		if one != nil {
			errs = append(errs, one.Close())
		}
	}
	return errors.Join(errs...)
}

// Queue is what a lane knows of the queue that it reads. The zero Queue knows
// nothing.
type Queue struct {
	*sheddingMemory       // nil where the TAP has no filter
	at              int64 // of the queue's own among the counters
}

// NewQueue returns the queue that the pair's lane reads.
func (p *Pair) NewQueue() Queue { return p.queue }

// queue returns the i-th queue.
func (t *TAP) queue(i int) Queue { return Queue{sheddingMemory: t.shared, at: int64(i) * countersEnd} }

// Take notes that frames were taken out of the queue. How many were before is what is in
// the shared memory: another process's lane may have taken some since this one was made.
func (q *Queue) Take(frames int) {
	if q.sheddingMemory != nil && frames > 0 {
		q.store(q.load(countedOut) + uint64(frames))
	}
}

// In returns how many frames went into the queue so far.
func (q *Queue) In() uint64 { return q.load(countedIn) }

// Empty notes that the queue was found empty, into which so many frames had gone
// before that. What the kernel counted and then could not put there is not to count
// as backlog for ever.
func (q *Queue) Empty(in uint64) {
	if q.sheddingMemory != nil && in > q.load(countedOut) {
		q.store(in)
	}
}

// Shed returns how many frames were refused for their datagram.
func (q *Queue) Shed() uint64 { return q.load(countedShed) }

// Credit notes that a datagram was accepted, to its source's credit. The filter takes
// from it at the same time, which may be lost.
func (q *Queue) Credit(src netip.Addr) {
	if q.sheddingMemory == nil {
		return
	}
	var b [8]byte
	at := 8 * creditPlace(q.key, prefixOf(src))
	_, _ = q.credit.ReadAt(b[:], at)
	if n := binary.NativeEndian.Uint64(b[:]); n < creditMost || n > 1<<63 {
		binary.NativeEndian.PutUint64(b[:], creditEarned+n)
		_, _ = q.credit.WriteAt(b[:], at)
	}
}

// prefixOf returns what stands for a source, an IPv4 /24 or an IPv6 /56, as the filter
// reads it from a packet.
func prefixOf(src netip.Addr) uint64 {
	if src.Is4() {
		b := src.As4()
		return uint64(binary.NativeEndian.Uint32(b[:])) & prefixMask4
	}
	b := src.As16()
	return binary.NativeEndian.Uint64(b[:8]) & prefixMask6
}

var (
	prefixMask4 = uint64(binary.NativeEndian.Uint32([]byte{0xff, 0xff, 0xff, 0}))
	prefixMask6 = binary.NativeEndian.Uint64([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0})
)

// creditPlace returns where the credit of a source is.
func creditPlace(key, prefix uint64) int64 { return int64(mixed(key+prefix) >> (64 - creditBits)) }

// mixed does what [mixInto] has a program do.
func mixed(hash uint64) uint64 {
	for _, round := range mixRounds {
		hash ^= hash >> round.shift
		hash *= uint64(round.factor)
	}
	return hash
}

func (q *Queue) store(out uint64) {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], out)
	_, _ = q.counts.WriteAt(b[:], q.at+countedOut) // fails only beyond the end
}

func (q *Queue) load(field int64) uint64 {
	if q.sheddingMemory == nil {
		return 0
	}
	var b [8]byte
	_, _ = q.counts.ReadAt(b[:], q.at+field)
	return binary.NativeEndian.Uint64(b[:])
}

// explainEBPF adds to an error of bpf(2) what is missing.
func explainEBPF(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %w: CAP_BPF is missing, or a seccomp profile denies bpf(2)", what, unix.EPERM)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%s: %w: the kernel is built without it", what, unix.ENOSYS)
	}
	return fmt.Errorf("%s: %w", what, err)
}
