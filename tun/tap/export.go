package tap

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun"
)

// exported describes a TAP to another process. Its descriptors are those of the queues; of the
// filter's two maps, if there is a filter; and of the rings' program and map, if there are
// rings.
type exported struct {
	MTU       int        `json:"mtu"` // the MTU that the TAP was opened with, in bytes
	Queues    int        `json:"queues"`
	Threaded  bool       `json:"threaded"`
	TakesUDP  bool       `json:"takes_udp"`
	Shedding  bool       `json:"shedding"`
	Rings     bool       `json:"rings"`
	Key       uint64     `json:"key"` // of the filter
	Fallbacks []fallback `json:"fallbacks,omitempty"`
}

// fallback is a [tun.Fallback] in JSON.
type fallback struct {
	tun.Fallback
	Err string
}

// Export returns the queues and the maps that are shared with the filter.
func (t *TAP) Export() (tun.Exported, error) {
	e := exported{MTU: t.config.MTU, Queues: len(t.queues), Threaded: t.threaded, TakesUDP: t.takesUDP}
	files := append([]int{}, t.queues...)
	if m := t.shared; m != nil {
		e.Shedding, e.Key = true, m.key
		files = append(files, m.queueMap.FD(), m.creditMap.FD())
	}
	if r := t.rings; r != nil {
		e.Rings = true
		files = append(files, r.collect.FD(), r.recordMap.FD())
	}
	for _, f := range t.fallbacks {
		e.Fallbacks = append(e.Fallbacks, fallback{f, f.Err.Error()})
	}
	state, err := json.Marshal(e)
	return tun.Exported{Files: files, State: state}, err
}

// Import returns the TAP that another process exported. The configuration must agree with that
// process's. Import owns the descriptors, also if it fails.
func Import(c tun.Config, from tun.Exported) (*TAP, error) {
	t := &TAP{config: c}
	if err := t.take(from); err != nil {
		return nil, errors.Join(fmt.Errorf("take over tap %q: %w", c.Name, err), t.Close())
	}
	return t, nil
}

func (t *TAP) take(from tun.Exported) error {
	t.queues = from.Files // so that Close closes all of them
	var e exported
	if err := json.Unmarshal(from.State, &e); err != nil {
		return err
	}
	want := e.Queues
	for _, pair := range []bool{e.Shedding, e.Rings} {
		if pair {
			want += 2
		}
	}
	if e.Queues < 1 || len(from.Files) != want {
		return fmt.Errorf("%d descriptors, want %d", len(from.Files), want)
	}
	t.config.MTU, t.config.Queues, t.threaded, t.takesUDP = e.MTU, e.Queues, e.Threaded, e.TakesUDP
	for _, f := range e.Fallbacks {
		f.Fallback.Err = errors.New(f.Err)
		t.fallbacks = append(t.fallbacks, f.Fallback)
	}
	rest := t.queues[e.Queues:]
	t.queues = t.queues[:e.Queues:e.Queues]
	var errs []error
	if e.Shedding {
		errs = append(errs, t.shareMaps(rest[:2], e.Key))
		rest = rest[2:]
	}
	if e.Rings {
		errs = append(errs, t.takeRings(rest))
	}
	return errors.Join(append(errs, t.identify())...)
}

// shareMaps takes over the maps that are shared with the filter.
func (t *TAP) shareMaps(files []int, key uint64) error {
	t.shared = &sheddingMemory{key: key}
	var errs [2]error
	t.shared.queueMap, errs[0] = ebpf.NewMapFromFD(files[0]) // closes the descriptor on an error
	t.shared.creditMap, errs[1] = ebpf.NewMapFromFD(files[1])
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	return t.shared.mapAll()
}

// takeRings takes over the rings. They do not collect from a NIC yet.
func (t *TAP) takeRings(files []int) error {
	var o ringObjects
	var errs [2]error
	o.Collect, errs[0] = ebpf.NewProgramFromFD(files[0]) // closes the descriptor on an error
	o.Records, errs[1] = ebpf.NewMapFromFD(files[1])
	if err := errors.Join(errs[:]...); err != nil {
		return errors.Join(err, o.Collect.Close(), o.Records.Close())
	}
	var err error
	t.rings, err = makeRings(&o)
	return err
}

// identify finds the index of the device, and checks that the queues belong to it.
func (t *TAP) identify() error {
	for _, fd := range t.queues {
		request, err := unix.NewIfreq("")
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, request); err != nil {
			return fmt.Errorf("a descriptor is not a tap: %w", err)
		}
		if name := request.Name(); name != t.config.Name {
			return fmt.Errorf("its name is now %q", name)
		}
		if offload := request.Uint16()&unix.IFF_VNET_HDR != 0; offload != t.config.Offload {
			return fmt.Errorf("offload is %v", offload)
		}
	}
	link, err := netlink.LinkByName(t.config.Name)
	if err != nil {
		return err
	}
	t.index = link.Attrs().Index
	return nil
}
