package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/fastpath"
	"fragwall/packet/verdict"
)

// States of the fast path.
const (
	FastPathOn  = "on"
	FastPathOff = "off"
)

// Off is the reason for which the fast path is off.
type Off string

// Reasons for which the fast path is off.
const (
	OffConfiguration Off = "configuration" // fast_path = "off"
	OffNoNIC         Off = "no_nic"        // a side of the wire has no NIC
	OffBridge        Off = "bridge"        // a NIC is joined by a bridge
	OffKernel        Off = "kernel"        // the kernel lacks a feature that the programs need
	OffRights        Off = "rights"        // the process may not load programs
	OffError         Off = "error"         // anything else
)

// FastPath is the state of the fast path and its counters.
type FastPath struct {
	State string `json:"state"` // [FastPathOn] or [FastPathOff]
	// Reason is why the fast path is off. Error has details, if there are any.
	Reason Off    `json:"reason,omitempty"`
	Error  string `json:"error,omitempty"`

	Entries      int `json:"entries"` // flows that the kernel has a verdict on
	EntriesLimit int `json:"entries_limit"`
	// Sides are "inside" and "outside", by ingress side.
	Sides map[string]FastPathSide `json:"sides"`
	// MapErrors is the number of entries that the kernel refused to add or remove.
	MapErrors uint64 `json:"map_errors"`
}

// FastPathSide are the counters of the frames that arrived on a side and that the fast path
// handled. [Side] counts the same frames.
type FastPathSide struct {
	Forwarded      uint64 `json:"forwarded_frames"`
	ForwardedBytes uint64 `json:"forwarded_bytes"`
	Dropped        uint64 `json:"dropped_frames"`
	DroppedBytes   uint64 `json:"dropped_bytes"`
	// PassedUp is the number of frames passed up to the process, by reason. Reasons without
	// frames are omitted.
	PassedUp map[string]uint64 `json:"passed_up_frames"`
	// Ring is the number of these frames, all of them fragments, that reached the process
	// through a ring.
	Ring uint64 `json:"ring_frames"`
}

// OfFastPath returns the report of a fast path that is on. rings is the number of fragments
// that reached the process through a ring, by ingress side.
func OfFastPath(stats *fastpath.Stats, rings [verdict.Sides]uint64) FastPath {
	f := FastPath{State: FastPathOn, Entries: stats.Entries, EntriesLimit: stats.Limit, Sides: make(map[string]FastPathSide, verdict.Sides), MapErrors: stats.MapErrors}
	for side := range verdict.Side(verdict.Sides) {
		of := &stats.Sides[side]
		passedUp := make(map[string]uint64)
		for reason, n := range of.Passed {
			if n > 0 {
				passedUp[fastpath.Reason(reason).String()] = n
			}
		}
		f.Sides[side.String()] = FastPathSide{of.Forwarded, of.ForwardedBytes, of.Dropped, of.DroppedBytes, passedUp, rings[side]}
	}
	return f
}

// TurnedOff returns the report of the same fast path after it was turned off. err has details,
// and may be nil.
func (f FastPath) TurnedOff(reason Off, err error) FastPath {
	f.State, f.Reason, f.Entries, f.EntriesLimit = FastPathOff, reason, 0, 0
	if err != nil {
		f.Error = err.Error()
	}
	return f
}

// write writes the state of the fast path, its entries, and why frames were passed up.
func (f *FastPath) write(to io.Writer) {
	fmt.Fprintf(to, "fast path: %s", terminal.Printable(f.State))
	if f.State != FastPathOn {
		fmt.Fprintf(to, " (%s)", terminal.Printable(string(f.Reason)))
		if f.Error != "" {
			fmt.Fprintf(to, ": %s", terminal.Printable(f.Error))
		}
		fmt.Fprintln(to)
		return
	}
	fmt.Fprintf(to, ", %s of %s entries", grouped(uint64(f.Entries)), grouped(uint64(f.EntriesLimit)))
	if f.MapErrors > 0 {
		fmt.Fprintf(to, ", map errors: %s", grouped(f.MapErrors))
	}
	fmt.Fprintln(to)
	passedUp, ring := make(map[string]uint64), uint64(0)
	for _, side := range f.Sides {
		ring += side.Ring
		for reason, n := range side.PassedUp {
			passedUp[reason] += n
		}
	}
	reasons := slices.SortedFunc(maps.Keys(passedUp), func(a, b string) int { // most frames first
		return cmp.Or(cmp.Compare(passedUp[b], passedUp[a]), strings.Compare(a, b))
	})
	for i, reason := range reasons {
		reasons[i] = fmt.Sprintf("%s %s", terminal.Printable(reason), grouped(passedUp[reason]))
	}
	if len(reasons) > 0 {
		fmt.Fprintf(to, "  frames passed up to the process: %s\n", strings.Join(reasons, ", "))
	}
	if ring > 0 {
		fmt.Fprintf(to, "  fragments through a ring: %s\n", grouped(ring))
	}
}

// fastPath writes the rows for the frames that the fast path forwarded or dropped.
func (t *table) fastPath(r *Report) {
	count := func(name, unit string, of func(FastPathSide) uint64) {
		t.both(name, func(side string) []string {
			return t.cells(of(r.FastPath.Sides[side]), of(t.before.FastPath.Sides[side]), unit)
		})
	}
	count("fast path frames", "", func(s FastPathSide) uint64 { return s.Forwarded + s.Dropped })
	count("fast path", "B", func(s FastPathSide) uint64 { return s.ForwardedBytes + s.DroppedBytes })
}
