package tap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// By itself the kernel puts a frame into the queue of a TAP that a hash of its
// flow says, in which a whole packet has ports and a fragment has none
// (drivers/net/tun.c, tun_automq_select_queue): the packets and the fragments
// of a flow go by different queues, and overtake one another. A steering
// program (TUNSETSTEERINGEBPF, Linux 4.16) chooses by the addresses alone.

// errNoSteering is wrapped where a TAP can't have a steering program.
var errNoSteering = errors.New("no steering program")

// steer has the kernel choose the queue of each frame by [steering].
func (t *TAP) steer() error {
	program, err := loadSteering()
	if err != nil {
		return fmt.Errorf("%w: %w", errNoSteering, err)
	}
	defer program.Close() // the device keeps it
	if err := unix.IoctlSetPointerInt(t.queues[0], unix.TUNSETSTEERINGEBPF, program.FD()); err != nil {
		return fmt.Errorf("%w: attach: %w", errNoSteering, err)
	}
	return nil
}

func loadSteering() (*ebpf.Program, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "fragwall_steer",
		Type:         ebpf.SocketFilter,
		Instructions: steering(steeringKey),
	})
	if err != nil {
		return nil, explainEBPF("load eBPF", err)
	}
	return program, nil
}

// steeringKey makes the queue of an address unpredictable, so that nobody can
// choose addresses that share one.
var steeringKey = rand.Uint64()

// Registers of [steering].
const (
	steerContext = asm.R6 // where loads of the frame look for it
	steerTags    = asm.R7 // bytes of VLAN tags in the frame
	steerSum     = asm.R8 // of the hashes of both addresses
	steerHash    = asm.R9 // of an address
)

// steering returns a socket filter that returns a number of 16 bits, of which
// the kernel takes the remainder by the count of queues. It is the same for all
// packets between two addresses, in both directions, whatever their ports,
// fragments and VLAN tags. What is not IP, is IP behind an LLC header or ends
// before its addresses gets 0.
//
// Each address has a hash of its own, and the sum of both is symmetric.
func steering(key uint64) asm.Instructions {
	const (
		src4, dst4 = 14 + 12, 14 + 16
		src6, dst6 = 14 + 8, 14 + 24
	)
	return slices.Concat(
		steerToType(),
		labeled("untagged", asm.Instructions{
			asm.JEq.Imm(asm.R0, unix.ETH_P_IP, "IPv4"),
			asm.JEq.Imm(asm.R0, unix.ETH_P_IPV6, "IPv6"),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		}),
		labeled("IPv4", addAddress(src4, 1, key), addAddress(dst4, 1, key)),
		asm.Instructions{asm.Ja.Label("result")},
		labeled("IPv6", addAddress(src6, 4, key), addAddress(dst6, 4, key)),
		labeled("result", asm.Instructions{
			asm.Mov.Reg(asm.R0, steerSum),
			asm.RSh.Imm(asm.R0, 48),
			asm.Return(),
		}),
	)
}

// labeled returns what there is to do at a label.
func labeled(label string, parts ...asm.Instructions) asm.Instructions {
	all := slices.Concat(parts...)
	all[0] = all[0].WithSymbol(label)
	return all
}

// steerLoad loads from the frame, so many bytes behind its tags, into R0. Where
// the frame ends before, the program returns 0.
func steerLoad(at int32, size asm.Size) asm.Instruction {
	return asm.LoadInd(asm.R0, steerTags, at, size)
}

// steerToType steps over up to two VLAN tags, which is how many a frame that
// passes may have, and goes on at "untagged" with the EtherType in R0. A tag that the kernel keeps
// beside the frame is not in the way.
func steerToType() asm.Instructions {
	const etherType = 12
	program := asm.Instructions{
		asm.Mov.Reg(steerContext, asm.R1),
		asm.Mov.Imm(steerTags, 0),
		asm.Mov.Imm(steerSum, 0),
		steerLoad(etherType, asm.Half),
	}
	for _, tag := range []string{"first tag", "second tag"} {
		program = append(program,
			asm.JEq.Imm(asm.R0, unix.ETH_P_8021Q, tag),
			asm.JNE.Imm(asm.R0, unix.ETH_P_8021AD, "untagged"),
			asm.Add.Imm(steerTags, 4).WithSymbol(tag),
			steerLoad(etherType, asm.Half),
		)
	}
	return program
}

// addAddress adds the hash of the address at an offset, of so many words of 32
// bits.
func addAddress(at, words int32, key uint64) asm.Instructions {
	program := asm.Instructions{asm.LoadImm(steerHash, int64(key), asm.DWord)}
	for word := range words {
		program = append(program, steerLoad(at+4*word, asm.Word), asm.Add.Reg(steerHash, asm.R0))
		program = append(program, mixInto(steerHash)...)
	}
	return append(program, asm.Add.Reg(steerSum, steerHash))
}

// mixInto has each bit of a register change about half of its high bits (after the
// finalizer of SplitMix64, G. L. Steele et al., 2014). It uses R1.
func mixInto(hash asm.Register) (program asm.Instructions) {
	for _, round := range mixRounds {
		program = append(program,
			asm.Mov.Reg(asm.R1, hash),
			asm.RSh.Imm(asm.R1, round.shift),
			asm.Xor.Reg(hash, asm.R1),
			asm.LoadImm(asm.R1, round.factor, asm.DWord),
			asm.Mul.Reg(hash, asm.R1),
		)
	}
	return program
}

var mixRounds = [...]struct {
	shift  int32
	factor int64
}{{30, 0xbf58476d1ce4e5b9 - 1<<64}, {27, 0x94d049bb133111eb - 1<<64}}
