package tap

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// By itself the kernel puts a frame into the queue of a TAP that a hash of its
// flow says, in which a whole packet has ports and a fragment has none
// (drivers/net/tun.c, tun_automq_select_queue): the packets and the fragments
// of a flow go by different queues, and overtake one another. A steering
// program (TUNSETSTEERINGEBPF, Linux 4.16) chooses by the addresses alone.

// errNoSteering is wrapped where a TAP can't have a steering program.
var errNoSteering = errors.New("no steering program")

// steer has the kernel choose the queue of each frame by the program steer (bpf/tap.c).
func (t *TAP) steer() error {
	programs := struct {
		Steer *ebpf.Program `ebpf:"steer"`
	}{}
	if err := t.load(&programs); err != nil {
		return fmt.Errorf("%w: %w", errNoSteering, err)
	}
	defer programs.Steer.Close() // the device keeps it
	if err := unix.IoctlSetPointerInt(t.queues[0], unix.TUNSETSTEERINGEBPF, programs.Steer.FD()); err != nil {
		return fmt.Errorf("%w: attach: %w", errNoSteering, err)
	}
	return nil
}
