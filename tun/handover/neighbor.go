package handover

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Offsets in a neighbour's header (struct ndmsg).
const (
	ndmIndex = 4
	ndmState = 8
	ndmFlags = 10
	ndmType  = 11
)

// readNeighbors returns the neighbours of a device whose MACs are known, and
// those that it stands proxy for.
func readNeighbors(index int) ([]message, error) {
	var list []message
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, flags := range []uint8{0, unix.NTF_PROXY} {
			header := make([]byte, unix.SizeofNdMsg)
			header[0], header[ndmFlags] = family, flags
			all, err := dump(unix.RTM_NEWNEIGH, header)
			if err != nil {
				return nil, fmt.Errorf("list neighbours: %w", err)
			}
			for _, m := range all {
				if m.family() == family && neighborIndex(m) == index && isKnown(m) {
					list = append(list, m)
				}
			}
		}
	}
	return list, nil
}

func neighborIndex(m message) int { return int(binary.NativeEndian.Uint32(m.header[ndmIndex:])) }

func neighborState(m message) uint16 { return binary.NativeEndian.Uint16(m.header[ndmState:]) }

// isKnown leaves out those that are being asked for, and groups, whose MACs
// follow from their addresses.
func isKnown(m message) bool {
	if m.header[ndmFlags]&unix.NTF_PROXY != 0 {
		return true
	}
	state := neighborState(m)
	if state == unix.NUD_NOARP {
		return m.header[ndmType] == unix.RTN_UNICAST
	}
	return state&(unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE|unix.NUD_PERMANENT) != 0
}

// isLearnt reports whether a neighbour was not entered by hand.
func isLearnt(m message) bool {
	return m.header[ndmFlags]&unix.NTF_PROXY == 0 && neighborState(m)&(unix.NUD_PERMANENT|unix.NUD_NOARP) == 0
}

// neighborFor returns what enters a neighbour of a device. Under trial means
// known, but not for sure.
func neighborFor(m message, index int) message {
	m = m.clone()
	binary.NativeEndian.PutUint32(m.header[ndmIndex:], uint32(index))
	if isLearnt(m) && neighborState(m) != unix.NUD_REACHABLE {
		binary.NativeEndian.PutUint16(m.header[ndmState:], unix.NUD_STALE)
	}
	m.remove(unix.NDA_CACHEINFO, unix.NDA_PROBES)
	return m
}

// freshenNeighbors returns neighbours, those learnt as others know them by
// now. What nobody knows any better is not for sure.
func freshenNeighbors(list, others []message) []message {
	known := make(map[string]message, len(others))
	for _, m := range others {
		known[string(m.get(unix.NDA_DST))] = m
	}
	fresh := make([]message, len(list))
	for i, m := range list {
		fresh[i] = m
		if !isLearnt(m) {
			continue
		}
		if now, ok := known[string(m.get(unix.NDA_DST))]; ok && isLearnt(now) {
			fresh[i] = now
			continue
		}
		fresh[i] = m.clone()
		binary.NativeEndian.PutUint16(fresh[i].header[ndmState:], unix.NUD_STALE)
	}
	return fresh
}

func addNeighbors(list []message) error {
	var errs []error
	for _, m := range list {
		if err := add(m, unix.NLM_F_REPLACE); err != nil {
			errs = append(errs, fmt.Errorf("add neighbour %q: %w", addressText(m.get(unix.NDA_DST)), err))
		}
	}
	return errors.Join(errs...)
}

func dropNeighbors(list []message) error {
	var errs []error
	for _, m := range list {
		if err := drop(m); err != nil {
			errs = append(errs, fmt.Errorf("remove neighbour %q: %w", addressText(m.get(unix.NDA_DST)), err))
		}
	}
	return errors.Join(errs...)
}
