package filter

import "slices"

// SameAs reports whether two rules do the same: only their names and lines may differ.
func (r *Rule) SameAs(other *Rule) bool {
	return r.Action == other.Action && r.Log == other.Log && r.Limit == other.Limit &&
		samePointee(r.From, other.From) && samePointee(r.Fragmented, other.Fragmented) &&
		sameSet(r.Protocols, other.Protocols) && sameSet(r.Src, other.Src) && sameSet(r.Dst, other.Dst) &&
		sameSet(r.SrcPorts, other.SrcPorts) && sameSet(r.DstPorts, other.DstPorts) &&
		sameSet(r.ICMPTypes, other.ICMPTypes) && sameSet(r.ICMPCodes, other.ICMPCodes) && r.VLANs.sameAs(other.VLANs)
}

func (v *VLANs) sameAs(other *VLANs) bool {
	if v == nil || other == nil {
		return v == other
	}
	return v.Untagged == other.Untagged && sameSet(v.IDs, other.IDs)
}

// sameSet compares two sets. nil differs from the empty set.
func sameSet[T comparable](a, b []Range[T]) bool {
	return (a == nil) == (b == nil) && slices.Equal(a, b)
}

func samePointee[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
