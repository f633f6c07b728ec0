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
	f.owned[side] = true
	programs := f.programs(side)
	hooks := [len(programs)]link.TCXOptions{
		{Interface: tap, Program: programs[0], Attach: ebpf.AttachTCXIngress},
		{Interface: nic, Program: programs[1], Attach: ebpf.AttachTCXIngress},
	}
	if nic == 0 {
		hooks[1].Interface, hooks[1].Attach = tap, ebpf.AttachTCXEgress
	}
	for _, hook := range hooks {
		l, err := link.AttachTCX(hook)
		if err != nil {
			f.detach(side)
			return fmt.Errorf("attach the fast path of the %s: %w", side, explain(err))
		}
		f.links[side] = append(f.links[side], l)
	}
	f.setDevices(side, nic, tap)
	f.claimOrders()
	f.unsettleOrders()
	return nil
}

// programs returns the programs of a side in the order of its links: at the TAP, and at the NIC.
func (f *FastPath) programs(side verdict.Side) [2]*ebpf.Program {
	if side == verdict.Outside {
		return [...]*ebpf.Program{f.objects.ToOutside, f.objects.FromOutside}
	}
	return [...]*ebpf.Program{f.objects.ToInside, f.objects.FromInside}
}

// setDevices makes the programs send frames for a side out of its NIC, or into its TAP.
func (f *FastPath) setDevices(side verdict.Side, nic, tap int) {
	egress, redirect := nic, uint32(0)
	if nic == 0 {
		egress, redirect = tap, unix.BPF_F_INGRESS
	}
	c := f.memory.config
	atomic.StoreUint32(&c.Redirect[side], redirect)
	atomic.StoreUint32(&c.Egress[side], uint32(egress))
	f.memory.setFlag(egressUp(side), true)
}

// Detach detaches the programs of a side. Frames from and to that side then go through the TAP.
func (f *FastPath) Detach(side verdict.Side) {
	f.attaching.Lock()
	defer f.attaching.Unlock()
	f.detach(side)
}

func (f *FastPath) detach(side verdict.Side) {
	atomic.StoreUint32(&f.memory.config.Egress[side], 0)
	f.closeLinks(side)
}

// closeLinks closes the links of a side. It detaches those that this process owns: another process
// may have descriptors of them, which would keep the programs attached.
func (f *FastPath) closeLinks(side verdict.Side) {
	for _, l := range f.links[side] {
		if f.owned[side] {
			_ = l.Detach() // already detached if the device is gone
		}
		_ = l.Close()
	}
	f.links[side], f.owned[side] = nil, false
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
