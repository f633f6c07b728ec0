package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
)

// Format is the version of the stream that [Bump.Save] writes. A reader accepts streams of its
// own format from other versions of the program, which may have more fields or fewer. Increase
// Format when the meaning of a field, or of a number in one, changes.
const Format = 1

// Parts selects the state of a wire that is saved.
type Parts uint8

const (
	// AllFlows selects every flow. From then on the wire records changes, until [Bump.Release].
	AllFlows Parts = 1 << iota
	// ChangedFlows selects the flows that changed or ended since flows were last saved.
	ChangedFlows
	// Rest selects all other state: counters, the fill of limits, incomplete datagrams,
	// poisoned keys, and credits of sources. The wire must be held.
	Rest
	// Unwatched says that flows may continue without the wire until they are restored.
	Unwatched
)

// A stream is a sequence of chunks. Each chunk is preceded by its length in 4 bytes,
// big-endian. The chunks together are one stream of package encoding/gob. The first chunk has a
// header, and the final one has Last set.

// maxChunk is the maximum length of a chunk in bytes. It bounds what a reader allocates.
const maxChunk = 1 << 18

// chunk is a part of a stream.
type chunk struct {
	Header    *streamHeader
	Gone      []flow.Key // applied before Flows
	FlowSize  int        // of one flow in Flows, in bytes
	Flows     []byte     // as [flow.AppendSaved] encodes them
	Fast      []flow.Key // of flows that the fast path knows
	Rest      *savedRest // precedes the following
	Rules     []filter.SavedRule
	Credits   []stack.SavedCredit
	Datagrams []stack.Saved
	Last      bool
}

// streamHeader describes the whole stream.
type streamHeader struct {
	Format   int
	Boot     string        // ID of the system's boot
	Time     time.Duration // since that boot
	Elapsed  time.Duration // at the same time, on the policy's clock
	AllFlows bool          // the stream replaces all flows restored before
	AnyVLANs bool          // the policy does not tell flows apart by VLAN
	Secret   [2]uint64     // of the hash of flow keys; zero without a flow table
}

// savedRest is the part of [Rest] that has a fixed size.
type savedRest struct {
	Sides [verdict.Sides]savedSide // by ingress side
	Mode  packet.Mode              // mode of fragments
	Hash  [2]uint64                // secret of the hash of sources and of the table of fragments; zero without a table
}

// savedSide is the counters of a side, without its incomplete datagrams.
type savedSide struct {
	Forwarded                     uint64
	Dropped                       []uint64 // by reason
	ReceivedBytes, ForwardedBytes uint64
	Sent, SentBytes               uint64
	Reassembled, Answered         uint64
	Latency                       []uint64 // by bucket
	LatencySum                    time.Duration
	Replies                       time.Duration // when the limit on replies is full again, on the policy's clock
}

// Save writes the selected parts of the wire's state, for [Bump.Restore] in another process.
func (b *Bump) Save(to io.Writer, p Parts) error {
	w := newChunkWriter(to)
	h := streamHeader{Format: Format, Boot: b.bootID, Time: b.boot(), Elapsed: b.Elapsed()}
	policy := b.policy.Load()
	flows := policy.FlowTable()
	h.AnyVLANs = policy.AnyVLANs()
	if flows != nil {
		h.Secret = flows.Secret()
		if p&ChangedFlows != 0 && !flows.Saving() { // the flows saved before are of another table
			p |= AllFlows
		}
	}
	h.AllFlows = flows == nil || p&AllFlows != 0
	if err := w.write(&chunk{Header: &h}); err != nil {
		return err
	}
	if flows != nil {
		if err := b.saveFlows(w, flows, p); err != nil {
			return err
		}
	}
	if p&(AllFlows|Unwatched) == AllFlows && b.fastPath != nil {
		for keys := range slices.Chunk(b.fastPath.Keys(), chunkLength) {
			if err := w.write(&chunk{Fast: keys}); err != nil {
				return err
			}
		}
	}
	if p&Rest != 0 {
		if err := b.saveRest(w, policy); err != nil {
			return err
		}
	}
	return w.write(&chunk{Last: true})
}

func (b *Bump) saveFlows(w *chunkWriter, flows *flow.Table, p Parts) error {
	var encoded []byte
	put := func(gone []flow.Key, flows []flow.Saved) error {
		for i := range flows {
			if p&Unwatched != 0 {
				flows[i].Unwatched()
			}
		}
		encoded = flow.AppendSaved(encoded[:0], flows)
		return w.write(&chunk{Gone: gone, FlowSize: flow.SavedSize, Flows: encoded})
	}
	pause := func(int) error { return nil }
	switch {
	case p&AllFlows != 0:
		err := flows.Save(b.Elapsed, pause, put)
		for i := 0; i < catchUps && err == nil; i++ {
			err = flows.SaveChanges(b.Elapsed, pause, put)
		}
		return err
	case p&ChangedFlows != 0:
		return flows.SaveChanges(b.Elapsed, pause, put)
	}
	return nil
}

// catchUps is how often [AllFlows] also writes what changed meanwhile. Each time takes less time than
// the one before, so that little is left for [ChangedFlows], which is written while the wire is held.
const catchUps = 2

// chunkLength is the number of entries in a chunk, for small entries.
const chunkLength = 256

// saveRest writes [Rest].
func (b *Bump) saveRest(w *chunkWriter, policy *filter.Table) error {
	rest := savedRest{Mode: b.mode}
	for side := range verdict.Side(verdict.Sides) {
		rest.Sides[side] = b.saveSide(side)
	}
	if b.table != nil {
		rest.Hash = b.table.Hash()
	}
	if err := w.write(&chunk{Rest: &rest}); err != nil {
		return err
	}
	for rules := range slices.Chunk(policy.SaveRules(), chunkLength) {
		if err := w.write(&chunk{Rules: rules}); err != nil {
			return err
		}
	}
	if b.table == nil {
		return nil
	}
	for credits := range slices.Chunk(b.table.SaveCredits(), chunkLength) {
		if err := w.write(&chunk{Credits: credits}); err != nil {
			return err
		}
	}
	return b.table.Save(b.Now(), func(d *stack.Saved) error {
		return w.write(&chunk{Datagrams: []stack.Saved{*d}})
	})
}

// saveSide returns the counters of a side. It leaves out the fragments that a lane shed,
// because the device continues to count them ([tun.Lane]).
func (b *Bump) saveSide(side verdict.Side) savedSide {
	s := b.Counters(side)
	s.Dropped[verdict.FragmentShed] -= b.Shed(side)
	latency := b.Latency(side).Snapshot()
	return savedSide{
		s.Forwarded, s.Dropped[:], s.ReceivedBytes, s.ForwardedBytes, s.Sent, s.SentBytes, s.Reassembled, s.Answered,
		latency.Buckets[:], latency.Sum, b.sides[side].replies.Full(),
	}
}

// chunkWriter writes a stream of chunks.
type chunkWriter struct {
	to      io.Writer
	buffer  bytes.Buffer
	encoder *gob.Encoder
}

func newChunkWriter(to io.Writer) *chunkWriter {
	w := &chunkWriter{to: to}
	w.encoder = gob.NewEncoder(&w.buffer)
	return w
}

func (w *chunkWriter) write(c *chunk) error {
	w.buffer.Reset()
	w.buffer.Write(make([]byte, 4))
	if err := w.encoder.Encode(c); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	b := w.buffer.Bytes()
	if len(b)-4 > maxChunk {
		return fmt.Errorf("save: a chunk of %d bytes", len(b))
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if _, err := w.to.Write(b); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// sinceBoot returns the time since the system booted, including time suspended.
func sinceBoot() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // never fails
	return time.Duration(t.Nano())
}

// readBootID returns the ID of the system's boot, or "" if it cannot be read.
func readBootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
