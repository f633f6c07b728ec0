package packet

import "fragwall/packet/verdict"

// View is what a policy judges: a whole packet, a reassembled datagram, or, in the modes
// that judge fragments, a first fragment.
type View struct {
	*Parsed
	From verdict.Side // the side that it arrived on
	// Body is the upper-layer header and the bytes after it, as far as they are
	// available. BodyLength is the length of all of them. For a first fragment that is
	// judged alone ([View.Partial]) it is the length in that fragment.
	Body       []byte
	BodyLength int
	// Verified is set if the NIC computes or has verified the transport checksum.
	Verified bool
}

// Length returns the length of the datagram in bytes, headers included.
func (v *View) Length() int { return v.Upper - v.Network + v.BodyLength }

// Partial reports whether the view is of a first fragment. Then the datagram is longer
// than BodyLength by an unknown number of bytes.
func (v *View) Partial() bool { return v.Fragment.Present }
