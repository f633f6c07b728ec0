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

// nothing is a program that passes every frame on to what follows it (TCX_NEXT).
var nothing = asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}

// Attach attaches the programs to a side: to the ingress of its NIC, and to that of the TAP
// through which user space sends to it. nic and tap are interface indexes. If the TAP is a
// device of the host itself, as on the inside of a sidecar, the side has no NIC and nic is 0:
// its frames arrive by the egress of the TAP.
func (f *FastPath) Attach(side verdict.Side, nic, tap int) error {
	f.attaching.Lock()
	defer f.attaching.Unlock()
	if f.isClosed() {
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

// Detach detaches the programs of a side. Frames from and to that side then go through the TAP.
func (f *FastPath) Detach(side verdict.Side) {
	f.attaching.Lock()
	defer f.attaching.Unlock()
	f.detach(side)
}

func (f *FastPath) detach(side verdict.Side) {
	atomic.StoreUint32(&f.memory.config.Egress[side], 0)
	for _, l := range f.links[side] {
		_ = l.Close() // already closed if the device is gone
	}
	f.links[side] = nil
}

// SetMTU sets the length in bytes of the longest packet that may be sent out of a side.
func (f *FastPath) SetMTU(side verdict.Side, bytes int) {
	atomic.StoreUint32(&f.memory.config.Mtu[side], uint32(bytes))
}

// SetEgress sets whether the link of a side is up. While it is down, frames to that side go
// through the TAP.
func (f *FastPath) SetEgress(side verdict.Side, up bool) { f.memory.setFlag(egressUp(side), up) }

func egressUp(side verdict.Side) programConfigFlag {
	if side == verdict.Inside {
		return programConfigFlagINSIDE_UP
	}
	return programConfigFlagOUTSIDE_UP
}
