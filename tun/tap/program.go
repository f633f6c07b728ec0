package tap

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// hashKey makes the queues and places of addresses and datagrams unpredictable, so that a sender
// cannot choose those that share a queue or place. All TAPs have the same key, so that packets
// between two addresses use the same queue of each TAP.
var hashKey = rand.Uint64()

// load loads programs (bpf/tap.c) and maps into a structure with fields for them.
func (t *TAP) load(objects any) error {
	if err := probe(); err != nil {
		return err
	}
	spec, err := loadProgram()
	if err != nil {
		return err
	}
	records := ringRecords(&t.config)
	spec.Maps[programMapQueues].MaxEntries = uint32(t.config.Queues)
	spec.Maps[programMapRecords].MaxEntries = uint32(max(1, t.config.Queues*records))
	for name, value := range map[string]any{
		programVarHashKey:      hashKey,
		programVarQueueCount:   uint32(t.config.Queues),
		programVarRingRecords:  uint32(records),
		programVarDecisionTime: decisionTime,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return err
		}
	}
	return explainEBPF("load eBPF", spec.LoadAndAssign(objects, nil))
}

// probe returns an error that says what is missing if the kernel accepts no program at all. The
// error of [ebpf.CollectionSpec.LoadAndAssign] would only name the program that failed.
func probe() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return explainEBPF("load eBPF", err)
	}
	return p.Close()
}

// explainEBPF adds what is missing to an error of bpf(2).
func explainEBPF(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %w: CAP_BPF is missing, or a seccomp profile denies bpf(2)", what, unix.EPERM)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%s: %w: the kernel is built without it", what, unix.ENOSYS)
	}
	return fmt.Errorf("%s: %w", what, err)
}
