package packet

// Mode is what happens to fragments. The zero Mode lets none pass.
type Mode uint8

const (
	// ModeDrop drops all fragments.
	ModeDrop Mode = iota
	// ModeReassemble holds fragments until their datagram is whole, and judges
	// the whole.
	ModeReassemble
	// ModeValidate judges a datagram by its first fragment alone, and lets the
	// others follow its verdict as long as no byte is claimed twice.
	ModeValidate
	// ModeFirstAcceptRest judges first fragments and lets all others pass.
	ModeFirstAcceptRest
	// ModeFirstDropRest judges first fragments and lets no other pass.
	ModeFirstDropRest
)

// Modes is how many values Mode has.
const Modes = int(ModeFirstDropRest) + 1

var modeNames = [Modes]string{
	ModeDrop:            "drop",
	ModeReassemble:      "reassemble",
	ModeValidate:        "validate",
	ModeFirstAcceptRest: "first-accept-rest",
	ModeFirstDropRest:   "first-drop-rest",
}

// String returns the mode's name as the configuration spells it.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "unknown"
}

// Emit is the shape in which a datagram that was put together leaves.
type Emit uint8

const (
	// EmitOriginal sends the datagram's own fragments, byte for byte.
	EmitOriginal Emit = iota
	// EmitWhole sends one datagram, fragmented again only where it exceeds the
	// egress MTU.
	EmitWhole
)

// Emits is how many values Emit has.
const Emits = int(EmitWhole) + 1

// String returns the shape's name as the configuration spells it.
func (e Emit) String() string {
	if e == EmitWhole {
		return "whole"
	}
	return "original"
}
