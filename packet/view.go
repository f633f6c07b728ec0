package packet

import "fragwall/packet/verdict"

// View is what a policy judges: a packet that is whole, that was reassembled,
// or, in the modes that judge fragments one by one, a first fragment.
type View struct {
	*Parsed
	From verdict.Side // the side that it came in by
	// Body is the upper-layer header and as much of what follows as is at hand;
	// BodyLength is the length of all of it, in bytes. Of a first fragment that
	// is judged alone ([View.Partial]) it is the length of the fragment's.
	Body       []byte
	BodyLength int
	// Verified is set where the checksum of the transport header was left to the
	// NIC, or found right by it.
	Verified bool
}

// Length returns the length of the datagram in bytes, headers included.
func (v *View) Length() int { return v.Upper - v.Network + v.BodyLength }

// Partial reports whether the view is of a first fragment, so that the
// datagram is longer than BodyLength by an unknown number of bytes.
func (v *View) Partial() bool { return v.Fragment.Present }
