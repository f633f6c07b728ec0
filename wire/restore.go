package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"time"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
)

// ErrFormat is wrapped by the error for a stream that cannot be restored: it has another
// format, is of another boot of the system, or is not a stream of [Bump.Save].
var ErrFormat = errors.New("saved state is not readable")

// Restore reads the state that another process saved. Call it before [Bump.Run], and call it
// again on the same wire for each stream saved later. Counters continue from the saved values.
// The deadlines of flows and fragments account for the time that has passed. The policy of this
// wire judges each flow again, as on a reload. On an error no flow is restored, but other state
// ([Rest]) of the stream may be.
func (b *Bump) Restore(from io.Reader) error {
	r := &restoring{Bump: b, chunks: newChunkReader(from), rules: b.policy.Load().RestoreRules()}
	err := r.run()
	if err == nil {
		return nil
	}
	if flows := b.policy.Load().FlowTable(); flows != nil {
		flows.Clear()
	}
	return fmt.Errorf("restore: %w", err)
}

// restoring is the state while a stream is read.
type restoring struct {
	*Bump
	chunks *chunkReader
	saved  time.Time     // when the stream was written, on this wire's clock
	flows  *flow.Restore // nil if flows are not restored
	buffer []flow.Saved
	rules  func([]filter.SavedRule, time.Duration)
	mode   bool // datagrams are restored
	// sameKeys says that the writer's policy and this wire's make the same keys of flows.
	sameKeys bool
}

func (r *restoring) run() error {
	c, err := r.chunks.read()
	if err != nil {
		return err
	}
	if c.Header == nil {
		return fmt.Errorf("%w: no header", ErrFormat)
	}
	if err := r.begin(c.Header); err != nil {
		return err
	}
	for !c.Last {
		if c, err = r.chunks.read(); err != nil {
			return err
		}
		if err := r.take(c); err != nil {
			return err
		}
	}
	if r.flows != nil {
		r.flows.Done()
	}
	return nil
}

// begin sets the clocks and the hash of flow keys to those of the stream.
func (r *restoring) begin(h *streamHeader) error {
	gap := r.boot() - h.Time
	switch {
	case h.Format != Format:
		return fmt.Errorf("%w: format %d; want %d", ErrFormat, h.Format, Format)
	case h.Boot != r.bootID:
		return fmt.Errorf("%w: saved before the last boot", ErrFormat)
	case gap < 0, h.Elapsed < 0, h.Time < 0:
		return fmt.Errorf("%w: its time is in the future", ErrFormat)
	}
	now := r.Now()
	r.saved = now.Add(-gap)
	if !r.restored {
		r.restored = true
		r.setStarted(r.saved.Add(-h.Elapsed))
	}
	policy := r.policy.Load()
	r.sameKeys = policy.AnyVLANs() == h.AnyVLANs
	flows := policy.FlowTable()
	if flows == nil {
		return nil
	}
	if h.AllFlows {
		flows.Clear()
	}
	if !r.sameKeys || h.Secret == ([2]uint64{}) { // the writer had no flow table
		return nil
	}
	r.flows = flows.NewRestore()
	return flows.SetSecret(h.Secret)
}

// setStarted sets the start of the policy's clock.
func (b *Bump) setStarted(at time.Time) {
	b.started = at
	for side := range b.sides {
		b.sides[side].started = at
	}
	if b.fastPath != nil {
		b.fastPath.Start(at)
	}
}

// take restores the state of a chunk.
func (r *restoring) take(c *chunk) error {
	if r.fastPath != nil && r.sameKeys && len(c.Fast) > 0 {
		r.fastPath.Expect(c.Fast)
	}
	if err := r.takeFlows(c); err != nil {
		return err
	}
	if c.Rest != nil {
		if err := r.takeRest(c.Rest); err != nil {
			return err
		}
	}
	if len(c.Rules) > 0 {
		r.rules(c.Rules, r.Elapsed())
	}
	if r.table != nil {
		r.table.RestoreCredits(c.Credits)
	}
	for i := range c.Datagrams {
		if err := r.takeDatagram(&c.Datagrams[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *restoring) takeFlows(c *chunk) (err error) {
	if r.flows == nil {
		return nil
	}
	r.flows.Forget(c.Gone)
	if len(c.Flows) == 0 {
		return nil
	}
	if r.buffer, err = flow.ReadSaved(r.buffer[:0], c.Flows, c.FlowSize); err != nil {
		return err
	}
	return r.flows.Put(r.buffer, r.Elapsed())
}

func (r *restoring) takeRest(rest *savedRest) error {
	for side := range rest.Sides {
		if err := r.takeSide(verdict.Side(side), &rest.Sides[side]); err != nil {
			return err
		}
	}
	r.mode = rest.Mode == r.Bump.mode
	if r.table == nil || rest.Hash == ([2]uint64{}) { // the writer had no table
		return nil
	}
	return r.table.SetHash(rest.Hash)
}

// takeSide restores the counters of a side.
func (r *restoring) takeSide(side verdict.Side, saved *savedSide) error {
	s := Snapshot{
		Forwarded: saved.Forwarded, ReceivedBytes: saved.ReceivedBytes, ForwardedBytes: saved.ForwardedBytes,
		Sent: saved.Sent, SentBytes: saved.SentBytes, Reassembled: saved.Reassembled, Answered: saved.Answered,
	}
	if len(saved.Dropped) > verdict.Reasons || len(saved.Latency) > LatencyBuckets {
		return fmt.Errorf("%w: reasons: %d, buckets: %d", ErrFormat, len(saved.Dropped), len(saved.Latency))
	}
	copy(s.Dropped[:], saved.Dropped)
	r.before[side].add(s)
	in := &r.sides[side]
	in.latency.restore(saved.Latency, saved.LatencySum)
	in.replies.Restore(saved.Replies, r.Elapsed())
	return nil
}

// takeDatagram restores an incomplete datagram. If the modes differ, it drops the fragments, as
// at the end of the wire.
func (r *restoring) takeDatagram(d *stack.Saved) (err error) {
	lost, why := len(d.Frames), verdict.FragmentShutdown
	if m, ok := r.fragments.(restorer); ok && r.mode {
		why = verdict.FragmentEvicted
		lost, err = m.Restore(d, r.saved, r.Now())
		r.block(&d.Key)
	}
	if d.Key.Side < verdict.Sides {
		r.before[d.Key.Side].Dropped[why] += uint64(lost)
	}
	return err
}

// block makes the fast path leave a datagram to the lanes.
func (r *restoring) block(k *stack.SavedKey) {
	if r.fastPath != nil && k.Side < verdict.Sides {
		var p packet.Parsed
		k.Parsed(&p)
		r.fastPath.Block(&p, k.Side)
	}
}

// restorer is a mode that keeps incomplete datagrams.
type restorer interface {
	Restore(d *stack.Saved, saved, now time.Time) (lost int, err error)
}

var (
	_ restorer = (*reassembly)(nil)
	_ restorer = (*validation)(nil)
)

// chunkReader reads a stream of chunks.
type chunkReader struct {
	from    io.Reader
	chunk   bytes.Buffer
	decoder *gob.Decoder
}

func newChunkReader(from io.Reader) *chunkReader {
	r := &chunkReader{from: from}
	r.decoder = gob.NewDecoder(&r.chunk) // does not read ahead, because bytes.Buffer is an io.ByteReader
	return r
}

func (r *chunkReader) read() (*chunk, error) {
	var length [4]byte
	if _, err := io.ReadFull(r.from, length[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxChunk {
		return nil, fmt.Errorf("%w: a chunk of %d bytes", ErrFormat, n)
	}
	r.chunk.Reset()
	if _, err := io.CopyN(&r.chunk, r.from, int64(n)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	c := &chunk{}
	if err := r.decoder.Decode(c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if r.chunk.Len() > 0 {
		return nil, fmt.Errorf("%w: bytes after the end of a chunk: %d", ErrFormat, r.chunk.Len())
	}
	return c, nil
}
