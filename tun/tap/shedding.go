package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"fragwall/tun"
)

// By itself the kernel drops each frame that finds a queue full: of an overload of
// fragments a part of each datagram, and what is left of it is read in vain. A filter
// (TUNSETFILTEREBPF, Linux 4.16) sheds whole datagrams instead, before they cost the
// reader anything: while a queue holds more than a mark, it refuses the fragment with
// which a datagram begins, and then the others of that datagram. Sources with credit,
// of which datagrams were accepted, have a mark of their own, so that a flood of others
// leaves room for them.
//
// The filter counts the frames that go into a queue; the lane counts those that it
// has taken out. Their difference is the backlog, which is what the queue holds and
// what the lane has not reported so far.

const (
	// shedMark is the backlog in frames above which no further datagram is let in of a
	// source without credit, and creditMark that of one with credit. Above both, up to
	// queueLength, is room for the rest of those that were, and for whole packets.
	shedMark   = queueLength - 2048
	creditMark = queueLength - 1024
	// decisionBits is the binary logarithm of how many datagrams the filter remembers.
	// Those whose hashes share a place push out one another.
	decisionBits = 16
	// decisionTime is how long a decision on a datagram holds, in units of
	// 1<<decisionShift ns, about 1 ms: longer than the fragments of a datagram take
	// to arrive, and shorter than a fast sender takes to come back to an
	// identification of 16 bits.
	decisionTime  = 250
	decisionShift = 20

	// creditBits is the binary logarithm of how many credits there are. Sources whose
	// hashes share a place share one.
	creditBits = 16
	// creditEarned is how many further datagrams a datagram that was accepted earns its
	// source above shedMark, and creditMost how many there can be.
	creditEarned, creditMost = 16, 256
)

// Fields of what the filter and a lane share about a queue, in bytes. The lane's
// are in a cache line of their own.
const (
	countedIn   = 0  // frames that went into the queue
	countedShed = 8  // frames that were refused for their datagram
	countedOut  = 64 // frames that the lane took out
	countersEnd = 128
)

// noShedding says that a TAP has no filter.
func noShedding(err error) tun.Fallback {
	return tun.Fallback{
		Level:   slog.LevelInfo,
		Message: "in an overload the taps lose single fragments, not whole datagrams",
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
	defer counters.Close() // the program and the mapping keep it
	decisions, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "fragwall_shed", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1 << decisionBits,
	})
	if err != nil {
		return explainEBPF("create map", err)
	}
	defer decisions.Close()
	credits, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "fragwall_credit", Type: ebpf.Array, Flags: unix.BPF_F_MMAPABLE, KeySize: 4, ValueSize: 8, MaxEntries: 1 << creditBits,
	})
	if err != nil {
		return explainEBPF("create map", err)
	}
	defer credits.Close()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "fragwall_shed",
		Type:         ebpf.SocketFilter,
		Instructions: shedding(shedHashKey, counters.FD(), decisions.FD(), credits.FD()),
	})
	if err != nil {
		return explainEBPF("load eBPF", err)
	}
	defer program.Close() // the device keeps it
	shared := &sheddingMemory{}
	if shared.counters, err = counters.Memory(); err != nil {
		return fmt.Errorf("map counters: %w", err)
	}
	if shared.credits, err = credits.Memory(); err != nil {
		return fmt.Errorf("map credits: %w", err)
	}
	if err := unix.IoctlSetPointerInt(t.queues[0], unix.TUNSETFILTEREBPF, program.FD()); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	t.shared = shared
	return nil
}

// shedHashKey makes the places of datagrams and sources unpredictable.
var shedHashKey = rand.Uint64()

// sheddingMemory is what a filter shares with lanes.
type sheddingMemory struct {
	counters *ebpf.Memory // of each queue, countersEnd bytes
	credits  *ebpf.Memory // of sources, 8 bytes each
}

// Queue is what a lane knows of the queue that it reads. The zero Queue knows
// nothing.
type Queue struct {
	*sheddingMemory       // nil where the TAP has no filter
	at              int64 // of the queue's own among the counters
	taken           uint64
}

// NewQueue returns the queue that the pair's lane reads.
func (p *Pair) NewQueue() Queue { return p.queue }

// queue returns the i-th queue, and what an earlier lane has taken out of it.
func (t *TAP) queue(i int) Queue {
	q := Queue{sheddingMemory: t.shared, at: int64(i) * countersEnd}
	q.taken = q.load(countedOut)
	return q
}

// Take notes that frames were taken out of the queue.
func (q *Queue) Take(frames int) {
	if q.sheddingMemory != nil && frames > 0 {
		q.taken += uint64(frames)
		q.store(q.taken)
	}
}

// In returns how many frames went into the queue so far.
func (q *Queue) In() uint64 { return q.load(countedIn) }

// Empty notes that the queue was found empty, into which so many frames had gone
// before that. What the kernel counted and then could not put there is not to count
// as backlog for ever.
func (q *Queue) Empty(in uint64) {
	if q.sheddingMemory != nil && in > q.taken {
		q.taken = in
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
	at := 8 * creditPlace(shedHashKey, prefixOf(src))
	_, _ = q.credits.ReadAt(b[:], at)
	if n := binary.NativeEndian.Uint64(b[:]); n < creditMost || n > 1<<63 {
		binary.NativeEndian.PutUint64(b[:], creditEarned+n)
		_, _ = q.credits.WriteAt(b[:], at)
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
func creditPlace(key, prefix uint64) int64 {
	h := key + prefix
	for _, round := range mixRounds {
		h ^= h >> round.shift
		h *= uint64(round.factor)
	}
	return int64(h >> (64 - creditBits))
}

func (q *Queue) store(out uint64) {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], out)
	_, _ = q.counters.WriteAt(b[:], q.at+countedOut) // fails only beyond the end
}

func (q *Queue) load(field int64) uint64 {
	if q.sheddingMemory == nil {
		return 0
	}
	var b [8]byte
	_, _ = q.counters.ReadAt(b[:], q.at+field)
	return binary.NativeEndian.Uint64(b[:])
}

// Registers of [shedding].
const (
	shedContext = asm.R6
	shedQueue   = asm.R7 // the bytes of VLAN tags, and then the queue's counters
	shedHash    = asm.R8 // of the datagram; its high half is not 0
	shedNow     = asm.R9 // whether it is a fragment, and then the time
)

// Places on the stack of [shedding]: words and addresses have to be aligned.
const (
	shedKey     = -8
	shedBacklog = -16
	shedPrefix  = -24 // of the source
	shedFrame   = -94 // its beginning, so that the IP header is at a multiple of 8
	shedIP      = shedFrame + 14
)

// shedding returns a socket filter that returns 0 for a frame to refuse, and else
// more than the frame's length. What it can't read passes: that is for the reader
// to judge.
//
// A decision is the high half of the datagram's hash, the time and, in the lowest
// bit, whether the datagram is refused.
func shedding(key uint64, counters, decisions, credits int) asm.Instructions {
	return slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(shedContext, asm.R1),
			asm.LoadImm(shedHash, int64(key), asm.DWord),
			asm.Mov.Imm(shedNow, 0),
		},
		shedToIP(),
		labeled("IPv4", shedIPv4()),
		labeled("IPv6", shedIPv6()),
		labeled("fragment", asm.Instructions{asm.Mov.Imm(shedNow, 1)}),
		labeled("count", shedCount(counters)),
		shedDecide(decisions),
		labeled("decide", shedJudge(key, credits)),
		labeled("shed", asm.Instructions{
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(shedQueue, asm.R1, asm.DWord, countedShed),
		}),
		labeled("full", asm.Instructions{
			asm.Mov.Imm(asm.R1, -1),
			asm.AddAtomic.Mem(shedQueue, asm.R1, asm.DWord, countedIn),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		}),
		labeled("pass", asm.Instructions{
			asm.Mov.Imm(asm.R0, 1<<31-1),
			asm.Return(),
		}),
	)
}

// shedLoad loads so many bytes of the frame behind its tags to the stack, or goes
// on at "count" where there are fewer.
func shedLoad(bytes int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, shedContext),
		asm.Mov.Reg(asm.R2, shedQueue),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, shedFrame),
		asm.Mov.Imm(asm.R4, bytes),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "count"),
	}
}

// shedToIP steps over up to two VLAN tags in the frame, and loads an IPv4 header, or
// as much of an IPv6 header.
func shedToIP() (program asm.Instructions) {
	const etherType = 12
	program = append(program, asm.Mov.Imm(shedQueue, 0))
	for _, tag := range []string{"shed first tag", "shed second tag", ""} {
		program = append(program, shedLoad(14+20)...)
		program = append(program,
			asm.LoadMem(asm.R0, asm.RFP, shedFrame+etherType, asm.Half),
			asm.HostTo(asm.BE, asm.R0, asm.Half),
			asm.JEq.Imm(asm.R0, unix.ETH_P_IP, "IPv4"),
			asm.JEq.Imm(asm.R0, unix.ETH_P_IPV6, "IPv6"),
		)
		if tag != "" {
			program = append(program,
				asm.JEq.Imm(asm.R0, unix.ETH_P_8021Q, tag),
				asm.JNE.Imm(asm.R0, unix.ETH_P_8021AD, "count"),
				asm.Add.Imm(shedQueue, 4).WithSymbol(tag),
			)
		}
	}
	return append(program, asm.Ja.Label("count"))
}

// shedIPv4 hashes the key of a datagram: what RFC 791 §3.2 names.
func shedIPv4() asm.Instructions {
	return slices.Concat(
		asm.Instructions{
			asm.LoadMem(asm.R0, asm.RFP, shedIP+6, asm.Half),
			asm.HostTo(asm.BE, asm.R0, asm.Half),
			asm.And.Imm(asm.R0, 0x3fff), // the M flag and the offset
			asm.JEq.Imm(asm.R0, 0, "count"),
			asm.LoadMem(asm.R0, asm.RFP, shedIP+4, asm.Half),
			asm.LoadMem(asm.R1, asm.RFP, shedIP+9, asm.Byte),
			asm.LSh.Imm(asm.R1, 16),
			asm.Or.Reg(asm.R0, asm.R1),
		},
		shedMix(),
		asm.Instructions{
			asm.LoadMem(asm.R0, asm.RFP, shedIP+12, asm.Word),
			asm.LoadImm(asm.R1, int64(prefixMask4), asm.DWord),
			asm.And.Reg(asm.R1, asm.R0),
			asm.StoreMem(asm.RFP, shedPrefix, asm.R1, asm.DWord),
		},
		shedMix(),
		asm.Instructions{asm.LoadMem(asm.R0, asm.RFP, shedIP+16, asm.Word)}, shedMix(),
		asm.Instructions{asm.Ja.Label("fragment")},
	)
}

// shedIPv6 does so for one whose fragment header follows the IPv6 header (RFC 8200
// §4.5). Behind other extension headers, where hardly anybody has one, fragments
// pass.
func shedIPv6() (program asm.Instructions) {
	const header = shedIP + 40
	program = append(shedLoad(14+40+8),
		asm.LoadMem(asm.R0, asm.RFP, shedIP+6, asm.Byte),
		asm.JNE.Imm(asm.R0, unix.IPPROTO_FRAGMENT, "count"),
		asm.LoadMem(asm.R0, asm.RFP, header+2, asm.Half),
		asm.HostTo(asm.BE, asm.R0, asm.Half),
		asm.And.Imm(asm.R0, 0xfff9), // the offset and the M flag
		asm.JEq.Imm(asm.R0, 0, "count"),
		asm.LoadMem(asm.R0, asm.RFP, header+4, asm.Word),
	)
	program = append(program, shedMix()...)
	program = append(program,
		asm.LoadMem(asm.R0, asm.RFP, shedIP+8, asm.DWord),
		asm.LoadImm(asm.R1, int64(prefixMask6), asm.DWord),
		asm.And.Reg(asm.R1, asm.R0),
		asm.StoreMem(asm.RFP, shedPrefix, asm.R1, asm.DWord),
	)
	for at := int16(8); at < 40; at += 8 {
		program = append(program, asm.LoadMem(asm.R0, asm.RFP, shedIP+at, asm.DWord))
		program = append(program, shedMix()...)
	}
	return program
}

// shedMix adds R0 to the hash.
func shedMix() asm.Instructions {
	program := asm.Instructions{asm.Add.Reg(shedHash, asm.R0)}
	return append(program, mixInto(shedHash)...)
}

// shedCount counts the frame into its queue, and goes on with the backlog, this frame
// included, on the stack if it is a fragment.
func shedCount(counters int) asm.Instructions {
	const queueMapping = 12 // in struct __sk_buff
	return asm.Instructions{
		asm.LoadMem(asm.R0, shedContext, queueMapping, asm.Word),
		asm.StoreMem(asm.RFP, shedKey, asm.R0, asm.Word),
		asm.LoadMapPtr(asm.R1, counters),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, shedKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(shedQueue, asm.R0),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(shedQueue, asm.R1, asm.DWord, countedIn),
		asm.LoadMem(asm.R1, shedQueue, countedIn, asm.DWord),
		asm.LoadMem(asm.R2, shedQueue, countedOut, asm.DWord),
		asm.Sub.Reg(asm.R1, asm.R2),
		// What does not fit the queue must not count as if it were there.
		asm.JSGT.Imm(asm.R1, queueLength, "full"),
		asm.JEq.Imm(shedNow, 0, "pass"),
		asm.StoreMem(asm.RFP, shedBacklog, asm.R1, asm.DWord),
	}
}

// shedDecide goes on at "pass" or at "shed" by the decision on the fragment's datagram,
// and behind its end where there is none.
func shedDecide(decisions int) asm.Instructions {
	return asm.Instructions{
		asm.FnKtimeGetNs.Call(),
		asm.Mov.Reg(shedNow, asm.R0),
		asm.RSh.Imm(shedNow, decisionShift),
		asm.And.Imm(shedNow, 1<<31-1),
		asm.Mov.Reg(asm.R0, shedHash),
		asm.And.Imm(asm.R0, 1<<decisionBits-1),
		asm.StoreMem(asm.RFP, shedKey, asm.R0, asm.Word),
		asm.LoadMapPtr(asm.R1, decisions),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, shedKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),

		// R3 and R4 are the decision to note: the hash, and with the time.
		asm.Mov.Reg(asm.R3, shedHash),
		asm.RSh.Imm(asm.R3, 32),
		asm.Mov.Reg(asm.R4, asm.R3),
		asm.LSh.Imm(asm.R4, 31),
		asm.Or.Reg(asm.R4, shedNow),
		asm.LSh.Imm(asm.R4, 1),

		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.RSh.Imm(asm.R2, 32),
		asm.JNE.Reg(asm.R2, asm.R3, "decide"),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.RSh.Imm(asm.R2, 1),
		asm.Sub.Reg(shedNow, asm.R2),
		asm.And.Imm(shedNow, 1<<31-1),
		asm.JGT.Imm(shedNow, decisionTime, "decide"),
		asm.And.Imm(asm.R1, 1),
		asm.JNE.Imm(asm.R1, 0, "shed"),
		asm.Ja.Label("pass"),
	}
}

// shedJudge makes a decision and notes it, from the place for it in R0 and what to
// note in R4, and goes on at "pass" or behind its end.
func shedJudge(key uint64, credits int) asm.Instructions {
	const (
		place    = asm.R8
		decision = asm.R9
	)
	return slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(place, asm.R0),
			asm.Mov.Reg(decision, asm.R4),
			asm.LoadMem(asm.R1, asm.RFP, shedBacklog, asm.DWord),
			asm.JSLE.Imm(asm.R1, shedMark, "admit"),
			asm.JSGT.Imm(asm.R1, creditMark, "refuse"),
			asm.LoadMem(asm.R3, asm.RFP, shedPrefix, asm.DWord),
			asm.LoadImm(asm.R1, int64(key), asm.DWord),
			asm.Add.Reg(asm.R3, asm.R1),
		},
		mixInto(asm.R3),
		asm.Instructions{
			asm.RSh.Imm(asm.R3, 64-creditBits),
			asm.StoreMem(asm.RFP, shedKey, asm.R3, asm.Word),
			asm.LoadMapPtr(asm.R1, credits),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, shedKey),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "refuse"),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
			asm.JSLE.Imm(asm.R1, 0, "refuse"),
			asm.Mov.Imm(asm.R1, -1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),

			asm.StoreMem(place, 0, decision, asm.DWord).WithSymbol("admit"),
			asm.Ja.Label("pass"),

			asm.Or.Imm(decision, 1).WithSymbol("refuse"),
			asm.StoreMem(place, 0, decision, asm.DWord),
		},
	)
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
