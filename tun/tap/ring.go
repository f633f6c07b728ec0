package tap

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/shared"
)

// A lane can receive fragments through a ring: memory into which a program at the NIC copies
// them, and which the lane has mapped (bpf/ring.h). These fragments take neither the path
// through the TAP nor a system call. A lane without a ring receives them through the TAP's
// queue.

// rings is the state of the rings of a TAP's queues.
type rings struct {
	collect   *ebpf.Program
	recordMap *ebpf.Map
	records   []programRecord // of all queues
	used      bool            // by a lane
	link      link.Link       // to the NIC; nil if it collects from none
}

// ringRecords returns the number of records in the ring of each queue: a power of 2, or 0.
func ringRecords(c *tun.Config) int {
	const least = 64
	if c.Fragments == 0 {
		return 0
	}
	return 1 << (bits.Len(uint(max(least, c.Fragments/c.Queues))) - 1)
}

// immediate makes the kernel put a frame into the queue at once. With a queueing discipline
// another CPU might do that later, when a fragment of the same flow is in the ring already.
func immediate(l netlink.Link) error {
	root := netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT}
	if err := netlink.QdiscReplace(&netlink.GenericQdisc{QdiscAttrs: root, QdiscType: "noqueue"}); err != nil {
		return fmt.Errorf("remove the queueing discipline: %w", err)
	}
	return nil
}

// noRings returns the fallback of a TAP without rings.
func noRings(err error) tun.Fallback {
	return tun.Fallback{Level: slog.LevelInfo, Message: "fragments go through the taps' queues, with a system call each", Err: err}
}

// makeRings makes rings of their program and maps, if the program can be attached to a NIC.
func makeRings(o *ringObjects) (*rings, error) {
	r := &rings{collect: o.Collect, recordMap: o.Records}
	// The kernel looks up the interface last, so ENODEV means that all else is supported.
	_, err := r.attach(math.MaxInt32)
	if errors.Is(err, unix.ENODEV) {
		r.records, err = shared.Array[programRecord](r, o.Records)
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// attach makes the program process the frames that arrive on a NIC, after other programs.
func (r *rings) attach(nic int) (link.Link, error) {
	return link.AttachTCX(link.TCXOptions{Interface: nic, Program: r.collect, Attach: ebpf.AttachTCXIngress})
}

// NewRing returns the ring of the queue that the pair's lane reads.
func (p *Pair) NewRing() Ring {
	if p.from.rings == nil || p.queue.own == nil {
		return Ring{}
	}
	p.from.rings.used = true
	n := len(p.from.rings.records) / len(p.from.queues)
	return Ring{of: p.from.rings, pair: p, queue: p.queue.own, records: p.from.rings.records[p.number*n:][:n]}
}

// Collect makes the fragments that arrive on a NIC go into the rings.
func (t *TAP) Collect(nic int) error {
	r := t.rings
	if r == nil {
		return nil
	}
	if r.link != nil {
		_ = r.link.Close() // already closed if the device is gone
		r.link = nil
	}
	if nic == 0 || !r.used {
		return nil
	}
	l, err := r.attach(nic)
	if err != nil {
		return fmt.Errorf("collect fragments for tap %q: %w", t.config.Name, err)
	}
	r.link = l
	return nil
}

// Collected returns the number of fragments that lanes took from the rings.
func (t *TAP) Collected() (fragments uint64) {
	for i := range t.queues {
		if q := t.queue(i); q.own != nil {
			fragments += atomic.LoadUint64(&q.own.Collected)
		}
	}
	return fragments
}

// close closes the rings. Lanes may still use their memory.
func (r *rings) close() error {
	if r == nil {
		return nil
	}
	errs := []error{r.collect.Close(), r.recordMap.Close()}
	if r.link != nil {
		errs = append(errs, r.link.Close())
	}
	return errors.Join(errs...)
}

// Ring is the ring of a queue, for the goroutine of the lane that reads it. The zero Ring is
// always empty.
type Ring struct {
	of      *rings // the owner of the memory
	pair    *Pair
	queue   *programQueue
	records []programRecord
	owned   bool   // by this lane, from Wake to Leave
	next    uint32 // number of the record that Lend returns next
	freed   uint32 // number of the first record that was lent and not freed
	awake   bool
	lent    uint64 // frames since the last Free
}

// Leave frees what was lent. Until Wake, another lane may own the ring, also a lane of another
// process, and this lane does not change it.
func (r *Ring) Leave() {
	r.Sleep()
	r.Free()
	r.owned = false
}

// Waiting reports whether there are records that were not lent yet.
func (r *Ring) Waiting() bool {
	return r.owned && uint32(atomic.LoadUint64(&r.queue.In)) != r.next
}

// Lend appends the frames that arrived before the queue had received queued frames in all,
// until there are most frames altogether. It reports whether it appended all of them.
func (r *Ring) Lend(frames []tun.Frame, queued uint32, most int) ([]tun.Frame, bool) {
	if !r.owned {
		return frames, true
	}
	for end := uint32(atomic.LoadUint64(&r.queue.In)); r.next != end; r.next++ {
		record, length := r.written(r.next)
		switch {
		case int32(record.Queued-queued) > 0:
			return frames, true
		case length == uint32(programRecordLengthSKIPPED):
		case len(frames) >= most:
			return frames, false
		default:
			frames = append(frames, r.frame(record, length))
			r.lent++
		}
	}
	return frames, true
}

// Blocked reports whether the next record waits for frames of the queue. queued is the number
// of frames that the queue has received in all.
func (r *Ring) Blocked(queued uint32) bool {
	if !r.Waiting() {
		return false
	}
	record, _ := r.written(r.next)
	return int32(record.Queued-queued) > 0
}

// written returns a record and its length, after waiting for a program on another CPU that is
// about to write it.
func (r *Ring) written(number uint32) (record *programRecord, length uint32) {
	record = &r.records[number&uint32(len(r.records)-1)]
	for spins := 0; ; spins++ {
		if length = atomic.LoadUint32(&record.Length); length != 0 {
			return record, length
		}
		if spins > 1000 {
			runtime.Gosched()
		}
	}
}

// frame makes a frame of a record.
func (r *Ring) frame(record *programRecord, length uint32) tun.Frame {
	record.Header = [tun.HeaderSize]byte{} // the program that wrote the frame may have used the space
	b := unsafe.Slice(&record.Header[0], uint32(len(record.Header))+min(length, uint32(len(record.Frame))))
	return r.pair.Lend(b[tun.HeaderSize-r.pair.Header:])
}

// Free lets the programs reuse all records that were lent. It changes nothing if none were
// lent: another process's lane may have taken over the ring.
func (r *Ring) Free() {
	if r.freed == r.next {
		return
	}
	for ; r.freed != r.next; r.freed++ {
		atomic.StoreUint32(&r.records[r.freed&uint32(len(r.records)-1)].Length, 0)
	}
	atomic.StoreUint32(&r.queue.Freed, r.freed)
	atomic.AddUint64(&r.queue.Collected, r.lent)
	r.lent = 0
}

// Sleep stops the programs from putting fragments into the ring, so that the next frame arrives
// in the queue and wakes the lane. It reports whether the ring is empty, and so stays empty.
func (r *Ring) Sleep() bool {
	if r.awake {
		r.awake = false
		atomic.SwapUint32(&r.queue.Awake, 0)
	}
	return !r.Waiting()
}

// Wake lets the programs put fragments into the ring. A lane that did not own the ring continues
// where the previous one ended.
func (r *Ring) Wake() {
	if r.queue == nil || r.awake {
		return
	}
	if !r.owned {
		r.owned = true
		r.next = atomic.LoadUint32(&r.queue.Freed)
		r.freed = r.next
	}
	r.awake = true
	atomic.SwapUint32(&r.queue.Awake, 1)
}
