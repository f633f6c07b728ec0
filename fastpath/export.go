package fastpath

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"fragwall/packet/verdict"
)

// When another process takes over, the programs of this one stay attached, but forward and drop
// nothing ([FastPath.Suspend]). The other process opens its programs on two of this one's maps: the
// orders and the counts of passed frames. Then it replaces the programs in their links
// ([FastPath.Continue]). So exactly one set of programs counts each frame, before, during and after
// the hand-over, and the frames that wait in a TAP's queue in the meantime are known. If the other
// process fails, this one puts its own programs back ([FastPath.Resume]).

// exportFormat is the version of the maps that are handed over: of their layout, of the hash that
// selects an order, and of the numbers of reasons.
const exportFormat = 1

// Exported describes a fast path to another process.
type Exported struct {
	Format   int                `json:"format"`
	Secret   [2]uint64          `json:"secret"`    // of the hash that selects an order
	AnyVLANs bool               `json:"any_vlans"` // keys have no VLANs, which the hash depends on
	Links    [verdict.Sides]int `json:"links"`     // number of links of each side
	// Files are descriptors: of the maps in handedMaps, and of the links, those of the inside
	// first.
	Files []int `json:"-"`
}

// handedMaps are the maps that are handed over.
var handedMaps = [...]string{programMapOrders, programMapPassed}

// Export describes the fast path. The caller owns the descriptors.
func (f *FastPath) Export() (*Exported, error) {
	f.attaching.Lock()
	defer f.attaching.Unlock()
	if f.isClosed() {
		return nil, nil
	}
	e := &Exported{Format: exportFormat, Secret: f.memory.config.Secret, AnyVLANs: f.memory.hasFlag(programConfigFlagANY_VLANS)}
	files := []int{f.objects.Orders.FD(), f.objects.Passed.FD()}
	for side, links := range f.links {
		e.Links[side] = len(links)
		for _, l := range links {
			files = append(files, l.(interface{ FD() int }).FD())
		}
	}
	for _, fd := range files {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			e.Close()
			return nil, os.NewSyscallError("fcntl", err)
		}
		e.Files = append(e.Files, own)
	}
	return e, nil
}

// Close closes the descriptors.
func (e *Exported) Close() {
	for _, fd := range e.Files {
		_ = unix.Close(fd)
	}
	e.Files = nil
}

// inherited is the part of another process's fast path that this one continues.
type inherited struct {
	*Exported
	maps  map[string]*ebpf.Map
	links [verdict.Sides][]link.Link
}

// inherit returns the parts of another process's fast path that the programs of spec can use,
// or nil if its format is different.
func inherit(e *Exported, spec *ebpf.CollectionSpec) (*inherited, error) {
	if e == nil || e.Format != exportFormat || len(e.Files) != len(handedMaps)+e.Links[verdict.Inside]+e.Links[verdict.Outside] {
		return nil, nil
	}
	in := &inherited{Exported: e, maps: map[string]*ebpf.Map{}}
	if err := in.take(spec); err != nil {
		in.close()
		return nil, fmt.Errorf("take over the fast path: %w", err)
	}
	return in, nil
}

func (in *inherited) take(spec *ebpf.CollectionSpec) error {
	files := in.Files
	next := func() int {
		fd, _ := unix.FcntlInt(uintptr(files[0]), unix.F_DUPFD_CLOEXEC, 0) // on an error it is -1, which fails below
		files = files[1:]
		return fd
	}
	for _, name := range handedMaps {
		m, err := ebpf.NewMapFromFD(next())
		if err != nil {
			return err
		}
		in.maps[name] = m
		if err := spec.Maps[name].Compatible(m); err != nil {
			return err
		}
	}
	for side, n := range in.Links {
		for range n {
			l, err := link.NewFromFD(next())
			if err != nil {
				return err
			}
			in.links[side] = append(in.links[side], l)
		}
	}
	return nil
}

// closeMaps closes the maps. The programs have their own descriptors of them.
func (in *inherited) closeMaps() {
	for _, m := range in.maps {
		_ = m.Close()
	}
}

func (in *inherited) close() {
	in.closeMaps()
	for _, links := range in.links {
		for _, l := range links {
			_ = l.Close()
		}
	}
}

// Continue replaces the programs of the process that this one took over from. nic and tap are as for
// [FastPath.Attach]. The other process must have stopped, and the lanes must not have started. If
// Continue fails, or if the other process's programs are in front of other devices, the side must be
// detached.
func (f *FastPath) Continue(side verdict.Side, nic, tap int) error {
	f.attaching.Lock()
	defer f.attaching.Unlock()
	if f.isClosed() || f.inherited == nil || len(f.links[side]) != len(f.programs(side)) {
		return errors.New("nothing to continue")
	}
	f.owned[side] = true
	if err := f.replace(side); err != nil {
		return err
	}
	f.setDevices(side, nic, tap)
	if f.claimOrders(); f.inherited.AnyVLANs != f.memory.hasFlag(programConfigFlagANY_VLANS) {
		f.unsettleOrders()
	}
	return nil
}

// replace makes the links of a side run the programs of this process.
func (f *FastPath) replace(side verdict.Side) (err error) {
	for i, l := range f.links[side] {
		err = errors.Join(err, l.Update(f.programs(side)[i]))
	}
	return err
}

// Suspend makes the programs pass up all frames, which they continue to count. It returns once
// none of them still forwards or drops a frame. From then on another process may own the links.
func (f *FastPath) Suspend() {
	f.attaching.Lock()
	f.owned = [verdict.Sides]bool{}
	f.attaching.Unlock()
	f.memory.setFlag(programConfigFlagRUNNING, false)
	grace()
}

// Resume ends what Suspend began. The lanes must not have continued: the other process may have
// replaced the programs.
func (f *FastPath) Resume() {
	f.attaching.Lock()
	defer f.attaching.Unlock()
	if f.isClosed() {
		return
	}
	for side := range verdict.Side(verdict.Sides) {
		f.owned[side] = true
		_ = f.replace(side) // fails if the device is gone
	}
	f.lendOrders()
	f.claimOrders()
	f.memory.setFlag(programConfigFlagRUNNING, true)
}

// ContinueCounts makes the counts of passed frames continue those of the process that this one took
// over from. It removes them from s.
func (f *FastPath) ContinueCounts(s *Stats) {
	for side := range verdict.Side(verdict.Sides) {
		passed := &s.Sides[side].Passed
		if f.inherited == nil { // otherwise the shared memory has them
			counts := f.memory.passedBy(0, side)
			for why, n := range passed {
				atomic.AddUint64(&counts[why], n)
			}
		}
		*passed = [Reasons]uint64{}
	}
}
