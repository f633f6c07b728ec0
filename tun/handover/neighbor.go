package handover

import (
	"encoding/binary"
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

// readNeighbors returns the neighbours of a device whose MACs are known, and those that
// it is a proxy for.
func readNeighbors(k kernel, index int) ([]message, error) {
	var list []message
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, flags := range []uint8{0, unix.NTF_PROXY} {
			header := make([]byte, unix.SizeofNdMsg)
			header[0], header[ndmFlags] = family, flags
			all, err := k.dump(unix.RTM_NEWNEIGH, header)
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

// isKnown excludes neighbours that are being resolved, and groups, whose MACs follow from
// their addresses.
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

// isLearnt reports whether a neighbour is not permanent.
func isLearnt(m message) bool {
	return m.header[ndmFlags]&unix.NTF_PROXY == 0 && neighborState(m)&(unix.NUD_PERMANENT|unix.NUD_NOARP) == 0
}

// neighborFor returns the message that adds a neighbour to a device. Its state is "probe"
// if the neighbour is known, but not confirmed.
func neighborFor(m message, index int) message {
	m = m.clone()
	binary.NativeEndian.PutUint32(m.header[ndmIndex:], uint32(index))
	if isLearnt(m) && neighborState(m) != unix.NUD_REACHABLE {
		m = staleNeighbor(m)
	}
	m.remove(unix.NDA_CACHEINFO, unix.NDA_PROBES)
	return m
}

// staleNeighbor returns a neighbour that is known, but not confirmed.
func staleNeighbor(m message) message {
	m = m.clone()
	binary.NativeEndian.PutUint16(m.header[ndmState:], unix.NUD_STALE)
	return m
}

func addNeighbors(k kernel, list []message) error {
	for _, m := range list {
		if err := add(k, m, unix.NLM_F_REPLACE); err != nil {
			return fmt.Errorf("add neighbour %q: %w", addressText(m.get(unix.NDA_DST)), err)
		}
	}
	return nil
}

func dropNeighbors(k kernel, list []message) error {
	for _, m := range list {
		if err := drop(k, m); err != nil {
			return fmt.Errorf("remove neighbour %q: %w", addressText(m.get(unix.NDA_DST)), err)
		}
	}
	return nil
}
