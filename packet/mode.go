package packet

// Mode decides how fragments are handled. The zero Mode drops them.
type Mode uint8

const (
	// ModeDrop drops all fragments.
	ModeDrop Mode = iota
	// ModeReassemble holds fragments until their datagram is complete, and judges the
	// datagram.
	ModeReassemble
	// ModeValidate judges the first fragment of a datagram. The others follow its
	// verdict, as long as no byte arrives twice.
	ModeValidate
	// ModeFirstAcceptRest judges first fragments and accepts all others.
	ModeFirstAcceptRest
	// ModeFirstDropRest judges first fragments and drops all others.
	ModeFirstDropRest
)

// Modes is the number of modes.
const Modes = int(ModeFirstDropRest) + 1

var modeNames = [Modes]string{
	ModeDrop:            "drop",
	ModeReassemble:      "reassemble",
	ModeValidate:        "validate",
	ModeFirstAcceptRest: "first-accept-rest",
	ModeFirstDropRest:   "first-drop-rest",
}

// String returns the name of the mode in the configuration.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "unknown"
}

// Emit is the form in which a reassembled datagram is sent.
type Emit uint8

const (
	// EmitOriginal sends the datagram's own fragments, byte for byte.
	EmitOriginal Emit = iota
	// EmitWhole sends one datagram, and fragments it again only if it exceeds the egress
	// MTU.
	EmitWhole
)

// Emits is the number of forms.
const Emits = int(EmitWhole) + 1

// String returns the name of the form in the configuration.
func (e Emit) String() string {
	if e == EmitWhole {
		return "whole"
	}
	return "original"
}
