package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/shared"
)

// The kernel sheds whole datagrams in an overload: see bpf/shed.h.

const (
	// creditEarned is the number of further datagrams above the mark that an accepted datagram
	// earns for its source. creditMost is the maximum.
	creditEarned, creditMost = 16, 256
)

// decisionTime is how long a decision on a datagram is valid, in units of about 1 ms
// (TIME_SHIFT): longer than the fragments of a datagram take to arrive, and shorter than a fast
// sender takes to reuse an identification of 16 bits. Tests make it longer.
var decisionTime uint32 = 250

// noShedding returns the fallback of a TAP without a filter.
func noShedding(err error) tun.Fallback {
	return tun.Fallback{
		Level:   slog.LevelInfo,
		Message: "in an overload the taps drop single fragments instead of whole datagrams",
		Err:     err,
	}
}

// filterObjects and ringObjects are the programs and maps of a filter and of the rings.
type (
	filterObjects struct {
		Shed    *ebpf.Program `ebpf:"shed"`
		Queues  *ebpf.Map     `ebpf:"queues"`
		Credits *ebpf.Map     `ebpf:"credits"`
	}
	ringObjects struct {
		Collect *ebpf.Program `ebpf:"collect"`
		Records *ebpf.Map     `ebpf:"records"`
	}
)

// filter makes the kernel refuse whole datagrams while a queue is long, and makes rings if they
// are configured. Without the right or the kernel for them, the TAP works without them.
func (t *TAP) filter() {
	var all struct {
		filterObjects
		ringObjects
	}
	if t.config.Fragments > 0 {
		err := t.load(&all)
		if err == nil {
			t.rings, err = makeRings(&all.ringObjects)
		}
		if err != nil {
			t.fallbacks = append(t.fallbacks, noRings(err))
		}
	}
	var err error
	if all.Shed == nil {
		err = t.load(&all.filterObjects)
	}
	if err == nil {
		err = t.shed(&all.filterObjects)
	}
	if err != nil {
		t.fallbacks = append(t.fallbacks, noShedding(err))
	}
}

// shed attaches the filter. The device keeps it.
func (t *TAP) shed(o *filterObjects) error {
	defer o.Shed.Close()
	m := &sheddingMemory{key: hashKey, queueMap: o.Queues, creditMap: o.Credits}
	err := m.mapAll()
	if err == nil {
		if err = unix.IoctlSetPointerInt(t.queues[0], unix.TUNSETFILTEREBPF, o.Shed.FD()); err != nil {
			err = fmt.Errorf("attach filter: %w", err)
		}
	}
	if err != nil {
		return errors.Join(err, m.close())
	}
	t.shared = m
	return nil
}

// sheddingMemory is the memory that the programs share with lanes, and with another process
// that takes over the device.
type sheddingMemory struct {
	key                 uint64 // see hashKey
	queueMap, creditMap *ebpf.Map
	queues              []programQueue
	credits             []int64 // by source
}

// mapAll maps the memory of the maps.
func (m *sheddingMemory) mapAll() (err error) {
	if m.queues, err = shared.Array[programQueue](m, m.queueMap); err != nil {
		return err
	}
	m.credits, err = shared.Array[int64](m, m.creditMap)
	return err
}

// close closes the maps. Their memory stays as long as a lane refers to it.
func (m *sheddingMemory) close() error {
	if m == nil {
		return nil
	}
	return errors.Join(m.queueMap.Close(), m.creditMap.Close())
}

// Queue is a lane's view of the queue that it reads. The zero Queue belongs to a TAP without a
// filter.
type Queue struct {
	*sheddingMemory               // nil if the TAP has no filter
	own             *programQueue // its element of the queues
}

// NewQueue returns the queue that the pair's lane reads.
func (p *Pair) NewQueue() Queue { return p.queue }

// queue returns the i-th queue.
func (t *TAP) queue(i int) Queue {
	if t.shared == nil {
		return Queue{}
	}
	return Queue{t.shared, &t.shared.queues[i]}
}

// Take records that frames were taken from the queue.
func (q *Queue) Take(frames int) {
	if q.own == nil || frames == 0 {
		return
	}
	// No more than arrived: a late frame may have been counted by [Queue.Empty] already.
	taken, in := q.Taken()+uint32(frames), q.In()
	if int32(taken-in) > 0 {
		taken = in
	}
	atomic.StoreUint32(&q.own.Taken, taken)
}

// Taken returns the number of frames taken from the queue so far, in the form of In.
func (q *Queue) Taken() uint32 {
	if q.own == nil {
		return 0
	}
	return q.own.Taken
}

// In returns the number of frames that have entered the queue, as a 32-bit number that wraps.
func (q *Queue) In() uint32 {
	if q.own == nil {
		return 0
	}
	return uint32(atomic.LoadUint64(&q.own.In) >> programQueueInQUEUED_SHIFT)
}

// Empty records that the queue was found empty, after in frames had entered it. Otherwise frames
// that the kernel counted, but then could not put into the queue, would always count as backlog.
func (q *Queue) Empty(in uint32) {
	if q.own != nil && int32(in-q.own.Taken) > 0 {
		atomic.StoreUint32(&q.own.Taken, in)
	}
}

// Shed returns the number of frames that were refused with their datagram.
func (q *Queue) Shed() uint64 {
	if q.own == nil {
		return 0
	}
	return q.filtered() + atomic.LoadUint64(&q.own.CollectShed)
}

// filtered returns how many of these the TAP's filter refused.
func (q *Queue) filtered() uint64 {
	if q.own == nil {
		return 0
	}
	return atomic.LoadUint64(&q.own.Shed)
}

// Credit records that a datagram was accepted, and adds to its source's credit. The filter
// spends this credit at the same time.
func (q *Queue) Credit(src netip.Addr) {
	if q.own == nil {
		return
	}
	credit := &q.credits[creditPlace(q.key, prefixOf(src))]
	switch n := atomic.LoadInt64(credit); {
	case n < 0:
		atomic.CompareAndSwapInt64(credit, n, creditEarned)
	case n < creditMost:
		atomic.AddInt64(credit, creditEarned)
	}
}

// prefixOf returns a source, an IPv4 /24 or an IPv6 /56, in the form in which the filter reads
// it from a packet.
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

// creditPlace returns the index of a source's credit.
func creditPlace(key, prefix uint64) uint64 {
	return mixed(key+prefix) >> (64 - programShedConstantsCREDIT_BITS)
}

// mixed is the same function as mix in the programs (bpf/packet.h).
func mixed(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	return (h ^ h>>27) * 0x94d049bb133111eb
}
