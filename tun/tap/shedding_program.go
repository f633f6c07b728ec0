package tap

import (
	"slices"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Registers of [shedding].
const (
	shedContext = asm.R6
	shedQueue   = asm.R7 // its counters
	shedHash    = asm.R8 // of the datagram
	shedTags    = asm.R9 // bytes of VLAN tags in the frame
	shedNow     = asm.R9 // and then the time

	// Once a decision is to be made:
	shedPlace    = asm.R8
	shedDecision = asm.R9
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
// more than the frame's length. What it can't read is treated like a whole packet: it is
// for the reader to judge.
//
// A decision is the high half of the datagram's hash and, in the low half, the time. At
// each place are the last two admissions and the last two refusals, so that neither kind
// pushes out the other: of one datagram only one holds at a time.
func shedding(key uint64, counters, decisions, credits int) asm.Instructions {
	return slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(shedContext, asm.R1),
			asm.LoadImm(shedHash, int64(key), asm.DWord),
		},
		shedCount(counters),
		labeled("parse", shedToIP()),
		labeled("IPv4", shedIPv4()),
		labeled("IPv6", shedIPv6()),
		labeled("fragment", shedDecide(decisions)),
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
		labeled("whole", asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, shedBacklog, asm.DWord),
			asm.JSGT.Imm(asm.R1, openMark, "full"),
		}),
		labeled("pass", asm.Instructions{
			asm.Mov.Imm(asm.R0, 1<<31-1),
			asm.Return(),
		}),
	)
}

// shedLoad loads so many bytes of the frame behind its tags to the stack, or goes
// on at "whole" where there are fewer.
func shedLoad(bytes int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, shedContext),
		asm.Mov.Reg(asm.R2, shedTags),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, shedFrame),
		asm.Mov.Imm(asm.R4, bytes),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "whole"),
	}
}

// shedToIP steps over up to two VLAN tags in the frame, and loads an IPv4 header, or
// as much of an IPv6 header.
func shedToIP() (program asm.Instructions) {
	const etherType = 12
	program = append(program, asm.Mov.Imm(shedTags, 0))
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
				asm.JNE.Imm(asm.R0, unix.ETH_P_8021AD, "whole"),
				asm.Add.Imm(shedTags, 4).WithSymbol(tag),
			)
		}
	}
	return append(program, asm.Ja.Label("whole"))
}

// shedIPv4 hashes the key of a datagram: what RFC 791 §3.2 names.
func shedIPv4() asm.Instructions {
	return slices.Concat(
		asm.Instructions{
			asm.LoadMem(asm.R0, asm.RFP, shedIP+6, asm.Half),
			asm.HostTo(asm.BE, asm.R0, asm.Half),
			asm.And.Imm(asm.R0, 0x3fff), // the M flag and the offset
			asm.JEq.Imm(asm.R0, 0, "whole"),
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
// §4.5). Behind other extension headers, where hardly anybody has one, a fragment is
// treated like a whole packet.
func shedIPv6() (program asm.Instructions) {
	const header = shedIP + 40
	program = append(shedLoad(14+40+8),
		asm.LoadMem(asm.R0, asm.RFP, shedIP+6, asm.Byte),
		asm.JNE.Imm(asm.R0, unix.IPPROTO_FRAGMENT, "whole"),
		asm.LoadMem(asm.R0, asm.RFP, header+2, asm.Half),
		asm.HostTo(asm.BE, asm.R0, asm.Half),
		asm.And.Imm(asm.R0, 0xfff9), // the offset and the M flag
		asm.JEq.Imm(asm.R0, 0, "whole"),
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

// shedCount counts the frame into its queue, and goes on at "parse" if it matters what
// is in it, with the backlog, this frame included, on the stack.
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
		asm.StoreMem(asm.RFP, shedBacklog, asm.R1, asm.DWord),
		asm.LoadMem(asm.R2, shedQueue, lastRefusal, asm.DWord),
		asm.JNE.Imm(asm.R2, 0, "parse"),
		asm.JSLE.Imm(asm.R1, quietMark, "pass"),
	}
}

// shedDecide goes on at "pass" or at "shed" by the decision on the fragment's datagram,
// and behind its end where there is none.
func shedDecide(decisions int) asm.Instructions {
	program := asm.Instructions{
		asm.FnKtimeGetNs.Call(),
		asm.Mov.Reg(shedNow, asm.R0),
		asm.RSh.Imm(shedNow, decisionShift),
		asm.Mov.Reg32(shedNow, shedNow),

		asm.LoadMem(asm.R1, shedQueue, lastRefusal, asm.DWord),
		asm.Mov.Reg(asm.R2, shedNow),
		asm.Sub.Reg32(asm.R2, asm.R1),
		asm.JLE.Imm(asm.R2, decisionTime, "recent"),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(shedQueue, lastRefusal, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R0, shedHash).WithSymbol("recent"),
		asm.And.Imm(asm.R0, 1<<decisionBits-1),
		asm.StoreMem(asm.RFP, shedKey, asm.R0, asm.Word),
		asm.LoadMapPtr(asm.R1, decisions),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, shedKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),

		// R3 is the half of the hash, and R4 the decision to note.
		asm.Mov.Reg(asm.R3, shedHash),
		asm.RSh.Imm(asm.R3, 32),
		asm.Mov.Reg(asm.R4, asm.R3),
		asm.LSh.Imm(asm.R4, 32),
		asm.Or.Reg(asm.R4, shedNow),
	}
	return slices.Concat(program,
		shedIfHolds(admitted, "pass", "older admission"),
		labeled("older admission", shedIfHolds(admitted+olderDecision, "pass", "refusal")),
		labeled("refusal", shedIfHolds(refused, "shed", "older refusal")),
		labeled("older refusal", shedIfHolds(refused+olderDecision, "shed", "decide")))
}

// shedIfHolds goes on at a label if the decision at a place, which R0 points to, is on
// the fragment's datagram and holds, and otherwise at another.
func shedIfHolds(decision int16, label, otherwise string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R0, decision, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.RSh.Imm(asm.R2, 32),
		asm.JNE.Reg(asm.R2, asm.R3, otherwise),
		asm.Mov.Reg(asm.R2, shedNow),
		asm.Sub.Reg32(asm.R2, asm.R1),
		asm.JLE.Imm(asm.R2, decisionTime, label),
		asm.Ja.Label(otherwise),
	}
}

// shedJudge makes a decision and notes it, at the place in R0 and as it stands in R4,
// and goes on at "pass" or behind its end.
func shedJudge(key uint64, credits int) asm.Instructions {
	return slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(shedPlace, asm.R0),
			asm.Mov.Reg(shedDecision, asm.R4),
			asm.LoadMem(asm.R1, asm.RFP, shedBacklog, asm.DWord),
			asm.JSLE.Imm(asm.R1, shedMark, "admit"),
			asm.JSGT.Imm(asm.R1, openMark, "refuse"),
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
			asm.JSLE.Imm(asm.R1, 0, "newcomer"),
			asm.Mov.Imm(asm.R1, -1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
			asm.Ja.Label("admit"),

			// Of the hash and the time, for the same outcome with each fragment.
			asm.Mov.Reg(asm.R3, shedDecision).WithSymbol("newcomer"),
			asm.RSh.Imm(asm.R3, newcomerShift),
		},
		mixInto(asm.R3),
		asm.Instructions{
			asm.RSh.Imm(asm.R3, 64-newcomerBits),
			asm.JNE.Imm(asm.R3, 0, "refuse"),
		},
		labeled("admit", shedNote(admitted)),
		asm.Instructions{asm.Ja.Label("pass")},
		labeled("refuse", shedNote(refused)),
		asm.Instructions{
			asm.Mov.Reg32(shedDecision, shedDecision), // the time
			asm.StoreMem(shedQueue, lastRefusal, shedDecision, asm.DWord),
		},
	)
}

// shedNote notes the decision at its place, the last one of its kind.
func shedNote(kind int16) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, shedPlace, kind, asm.DWord),
		asm.StoreMem(shedPlace, kind+olderDecision, asm.R1, asm.DWord),
		asm.StoreMem(shedPlace, kind, shedDecision, asm.DWord),
	}
}
