package fastpath

import "fragwall/packet/verdict"

// Reason is why a frame did not take the fast path. The list is closed.
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
	// Policy: the entry is of an older policy, or there is no verdict on such frames.
	Policy = Reason(programReasonPOLICY)
	// Order: earlier frames of the flow are still on their way through user space.
	Order = Reason(programReasonORDER)
	// Flags: SYN, FIN, RST or URG, or no ACK.
	Flags = Reason(programReasonFLAGS)
	// Window: the TCP numbers are not those of the next segment in order.
	Window = Reason(programReasonWINDOW)
	// Checksum: the transport header's checksum or length is wrong.
	Checksum = Reason(programReasonCHECKSUM)
	// Fragment: of a datagram that user space validates or reassembles.
	Fragment = Reason(programReasonFRAGMENT)
	// Sample: a frame that is to be dropped, passed up for an event.
	Sample = Reason(programReasonSAMPLE)
	// Segments: UDP that has yet to be segmented.
	Segments = Reason(programReasonSEGMENTS)
)

// Reasons is the number of values of Reason.
const Reasons = int(programReasonNONE)

var reasonNames = [Reasons]string{
	Suspended: "suspended", NotIP: "not_ip", Header: "header", Protocol: "protocol", Size: "size",
	UnknownFlow: "unknown_flow", Policy: "policy", Order: "order", Flags: "flags", Window: "window",
	Checksum: "checksum", Fragment: "fragment", Sample: "sample", Segments: "segments",
}

// String returns the reason's name as in metrics.
func (r Reason) String() string {
	if int(r) < Reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Stats are the counts of frames so far, and how full the fast path is.
type Stats struct {
	Sides   [verdict.Sides]SideStats // by ingress side
	Entries int                      // flows
	Limit   int                      // of Entries
	// MapErrors is the number of operations on the kernel's map of flows that failed; the
	// frames concerned went through the TAP.
	MapErrors uint64
}

// SideStats count the frames that arrived on a side.
type SideStats struct {
	Forwarded, ForwardedBytes uint64          // by the program
	Dropped, DroppedBytes     uint64          // by the program
	Passed                    [Reasons]uint64 // to user space, by reason
}

// Add adds the counters of a fast path that this one continues.
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
