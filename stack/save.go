package stack

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Saved is a datagram in the table, or a part of one, in the form in which another process can
// take it over. The frames of one datagram may be spread over several consecutive Saved. The
// first of them has all other fields.
type Saved struct {
	Key   SavedKey
	More  bool          // it has further frames of the previous datagram
	Left  time.Duration // until the deadline
	Begun uint64        // datagrams that its source has begun since this one

	Poisoned bool           // the datagram was discarded
	Judged   bool           // the first fragment was judged
	Why      verdict.Reason // why the datagram was discarded, or why the first fragment is dropped
	// The ranges that the fragments claimed, if the first fragment was judged: in order and
	// disjoint.
	Claims []Range
	Blocks bool // claims are whole blocks of 8 bytes: the boundaries of fragments are not known
	// What is known about the length, unless it follows from Frames: the number of fragments
	// that arrived, the bytes of their payload, and the farthest of these; the end of the
	// datagram and the length of the headers before the payload, 0 if not known.
	Count, Have, Reached, End, Headers int

	Frames [][]byte // that are held
}

// SavedKey identifies a datagram, as key does.
type SavedKey struct {
	Src, Dst [16]byte
	VLANs    packet.VLANs
	ID       uint32
	Protocol uint16
	Side     verdict.Side
	IPv6     bool
}

func (k *key) save() SavedKey {
	return SavedKey{k.src, k.dst, k.vlans, k.id, k.protocol, k.side, k.family == familyIPv6}
}

func (k *SavedKey) key() (key, error) {
	if k.Side >= verdict.Sides {
		return key{}, errNoDatagram
	}
	f := familyIPv4
	if k.IPv6 {
		f = familyIPv6
	}
	return key{k.Src, k.Dst, k.VLANs, k.ID, k.Protocol, k.Side, f}, nil
}

// Parsed fills in the fields of a fragment's header that identify its datagram.
func (k *SavedKey) Parsed(p *packet.Parsed) {
	*p = packet.Parsed{
		Kind: packet.IPv6, Src: netip.AddrFrom16(k.Src), Dst: netip.AddrFrom16(k.Dst),
		Fragment: packet.Fragment{Present: true, ID: k.ID},
	}
	if !k.IPv6 {
		p.Kind, p.Src, p.Dst, p.Protocol = packet.IPv4, p.Src.Unmap(), p.Dst.Unmap(), uint8(k.Protocol)
	}
	p.TagCount = uint8(copy(p.Tags[:], k.VLANs[:k.VLANs.Len()]))
}

var errNoDatagram = errors.New("not an incomplete datagram")

// savedFrames is the number of bytes of frames after which the next Saved begins.
const savedFrames = 1 << 16

// Save calls put with each datagram, in the order in which they began. The argument is only
// valid during the call. A part of the table is locked meanwhile, so no fragments may arrive.
func (t *Table) Save(now time.Time, put func(*Saved) error) error {
	for _, s := range t.shards {
		if err := s.save(now, put); err != nil {
			return err
		}
	}
	return nil
}

func (s *shard) save(now time.Time, put func(*Saved) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Datagram, 0, len(s.waiting))
	for _, d := range s.waiting {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *Datagram) int { return cmp.Compare(a.number, b.number) })
	for _, d := range all {
		if err := d.save(now, put); err != nil {
			return err
		}
	}
	return nil
}

func (d *Datagram) save(now time.Time, put func(*Saved) error) error {
	r := Saved{
		Key: d.key.save(), Left: d.deadline.Sub(now), Begun: d.load.begun - d.begun,
		Poisoned: d.poisoned, Judged: d.judged && !d.poisoned, Why: d.verdict,
		Count: d.count, Have: d.have, Reached: d.reached, End: d.end, Headers: d.headers,
	}
	if r.Judged {
		d.claims.each(func(start, end int) { r.Claims = append(r.Claims, Range{start, end}) })
		r.Blocks = d.claims.blocks != nil
	}
	size := 0
	for i := range d.fragments {
		if size > savedFrames {
			if err := put(&r); err != nil {
				return err
			}
			r, size = Saved{Key: r.Key, More: true}, 0
		}
		r.Frames = append(r.Frames, d.Frame(i))
		size += len(d.Frame(i))
	}
	return put(&r)
}

// Hash returns the key of the hash by which sources share the table, and their credits.
func (t *Table) Hash() [2]uint64 { return [2]uint64{t.hash.k0, t.hash.k1} }

// SavedCredit is a credit, which some sources share.
type SavedCredit struct {
	Slot uint32
	Left int32 // fragments
}

// SaveCredits returns the credits, except those of 0.
func (t *Table) SaveCredits() (saved []SavedCredit) {
	for i := range t.credits.slots {
		if left := t.credits.slots[i].Load(); left > 0 {
			saved = append(saved, SavedCredit{uint32(i), left})
		}
	}
	return saved
}
