package tap

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// By default the kernel selects the queue of a TAP by a hash of the frame's flow. For a whole
// packet this hash includes ports, for a fragment it does not (drivers/net/tun.c,
// tun_automq_select_queue): the packets and the fragments of a flow use different queues, and
// overtake one another. A steering program (TUNSETSTEERINGEBPF, Linux 4.16) selects the queue
// by the addresses alone.

// errNoSteering is wrapped if a TAP cannot have a steering program.
var errNoSteering = errors.New("no steering program")

// steer makes the kernel select the queue of each frame by the program steer (bpf/tap.c).
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
