package fastpath

import "fragwall/packet/verdict"

// Reason says why a frame did not take the fast path. The list is closed.
type Reason uint8

// The reasons.
const (
	// Suspended: the side is not attached, the link of the other side is down, or the
	// fast path is closed.
	Suspended = Reason(programReasonSUSPENDED)
	// NotIP: neither IPv4 nor IPv6, or behind two VLAN tags or LLC.
	NotIP = Reason(programReasonNOT_IP)
	// Header: IPv4 options, an IPv6 extension header, or a header that is not valid.
	Header = Reason(programReasonHEADER)
	// Protocol: neither TCP, UDP nor ICMP echo.
	Protocol = Reason(programReasonPROTOCOL)
	// Size: the packet exceeds the egress side's MTU, or its frame has a trailer
	// that does.
	Size = Reason(programReasonSIZE)
	// UnknownFlow: the flow has no entry.
	UnknownFlow = Reason(programReasonUNKNOWN_FLOW)
	// Policy: the entry is of an older policy, or nothing was decided of such frames.
	Policy = Reason(programReasonPOLICY)
	// Order: frames of the flow are still on their way through user space.
	Order = Reason(programReasonORDER)
	// Flags: SYN, FIN, RST or URG, or no ACK.
	Flags = Reason(programReasonFLAGS)
	// Window: TCP numbers that are not those of a segment in turn.
	Window = Reason(programReasonWINDOW)
	// Checksum: the transport header's checksum or length is wrong.
	Checksum = Reason(programReasonCHECKSUM)
	// Fragment: of a datagram that user space validates or puts together.
	Fragment = Reason(programReasonFRAGMENT)
	// Sample: a frame that is dropped, for an event.
	Sample = Reason(programReasonSAMPLE)
	// Segments: UDP with segments that are still to be made.
	Segments = Reason(programReasonSEGMENTS)
)

// Reasons is how many values Reason has.
const Reasons = int(programReasonNONE)

var reasonNames = [Reasons]string{
	Suspended: "suspended", NotIP: "not_ip", Header: "header", Protocol: "protocol", Size: "size",
	UnknownFlow: "unknown_flow", Policy: "policy", Order: "order", Flags: "flags", Window: "window",
	Checksum: "checksum", Fragment: "fragment", Sample: "sample", Segments: "segments",
}

// String returns the reason's name as metrics spell it.
func (r Reason) String() string {
	if int(r) < Reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Stats are what became of the frames so far, and how full the fast path is.
type Stats struct {
	Sides   [verdict.Sides]SideStats // by the side that frames came in by
	Entries int                      // flows
	Limit   int                      // of Entries
	// MapErrors is how many operations on the kernel's map of flows failed; the
	// frames concerned took the way over the TAP.
	MapErrors uint64
}

// SideStats are of the frames that came in by a side.
type SideStats struct {
	Forwarded, ForwardedBytes uint64          // by the program
	Dropped, DroppedBytes     uint64          // by the program
	Passed                    [Reasons]uint64 // to user space, by reason
}

// Add adds the counters of a fast path that this one goes on from.
func (s *Stats) Add(before *Stats) {
	for side := range s.Sides {
		s.Sides[side].add(&before.Sides[side])
	}
	s.MapErrors += before.MapErrors
}

func (s *SideStats) add(before *SideStats) {
	s.Forwarded += before.Forwarded
	s.ForwardedBytes += before.ForwardedBytes
	s.Dropped += before.Dropped
	s.DroppedBytes += before.DroppedBytes
	for reason, n := range before.Passed {
		s.Passed[reason] += n
	}
}
