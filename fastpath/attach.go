package fastpath

import (
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"fragwall/packet/verdict"
)

// nothing is a program that leaves each frame to what follows it (TCX_NEXT).
var nothing = asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}

// Attach puts the programs in front of a side: of the ingress of its NIC, and of the
// TAP by which user space sends to it. nic and tap are indexes of interfaces. A side
// whose TAP is a device of the host's own, as the inside of a sidecar is, has no NIC,
// which is 0: its frames come in by the egress of the TAP.
func (f *FastPath) Attach(side verdict.Side, nic, tap int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("attach the fast path of the %s: the fast path is closed", side)
	}
	in, out := f.objects.FromInside, f.objects.ToInside
	if side == verdict.Outside {
		in, out = f.objects.FromOutside, f.objects.ToOutside
	}
	hooks := []link.TCXOptions{
		{Interface: tap, Program: out, Attach: ebpf.AttachTCXIngress},
		{Interface: nic, Program: in, Attach: ebpf.AttachTCXIngress},
	}
	egress, redirect := nic, uint32(0)
	if nic == 0 {
		hooks[1] = link.TCXOptions{Interface: tap, Program: in, Attach: ebpf.AttachTCXEgress}
		egress, redirect = tap, unix.BPF_F_INGRESS
	}
	for _, hook := range hooks {
		l, err := link.AttachTCX(hook)
		if err != nil {
			f.detach(side)
			return fmt.Errorf("attach the fast path of the %s: %w", side, explain(err))
		}
		f.links[side] = append(f.links[side], l)
	}
	c := f.memory.config
	atomic.StoreUint32(&c.Redirect[side], redirect)
	atomic.StoreUint32(&c.Egress[side], uint32(egress))
	f.memory.setFlag(egressUp(side), true)
	return nil
}

// Detach takes the programs of a side away. Its frames take the way over the TAP, as
// do those that are to leave by it.
func (f *FastPath) Detach(side verdict.Side) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.detach(side)
}

func (f *FastPath) detach(side verdict.Side) {
	atomic.StoreUint32(&f.memory.config.Egress[side], 0)
	for _, l := range f.links[side] {
		_ = l.Close() // of a device that is gone it is closed already
	}
	f.links[side] = nil
}

// SetMTU sets the length in bytes of the longest packet that a side takes.
func (f *FastPath) SetMTU(side verdict.Side, bytes int) {
	atomic.StoreUint32(&f.memory.config.Mtu[side], uint32(bytes))
}

// SetEgress says whether the link of a side is up. What is to leave by a side whose
// link is down takes the way over the TAP.
func (f *FastPath) SetEgress(side verdict.Side, up bool) { f.memory.setFlag(egressUp(side), up) }

func egressUp(side verdict.Side) programConfigFlag {
	if side == verdict.Inside {
		return programConfigFlagINSIDE_UP
	}
	return programConfigFlagOUTSIDE_UP
}
