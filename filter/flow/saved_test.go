package flow

import (
	"testing"
	"unsafe"
)

// TestSavedFormat checks the format in which programs of different versions exchange flows: the
// offsets of fields, and the numbers of states, timeouts, classes, kinds and flags. If one of
// them changes, increase wire.Format. New fields may follow the others.
func TestSavedFormat(t *testing.T) {
	var s Saved
	for got, want := range map[uintptr]uintptr{
		unsafe.Offsetof(s.Begun): 48, unsafe.Offsetof(s.Sent): 64, unsafe.Offsetof(s.Origin): 96, unsafe.Offsetof(s.Marks): 100,
		unsafe.Offsetof(s.TCP): 104, unsafe.Offsetof(s.TCP.Last): 40, unsafe.Offsetof(s.SCTP): 164, unsafe.Sizeof(s): 176,
	} {
		if got != want {
			t.Errorf("a field is at %d, want %d", got, want)
		}
	}
	for got, want := range map[uint8]uint8{
		uint8(SynSent): 1, uint8(SynSent2): 2, uint8(SynRecv): 3, uint8(Established): 4, uint8(FinWait): 5, uint8(CloseWait): 6,
		uint8(LastAck): 7, uint8(TimeWait): 8, uint8(Close): 9, uint8(Unreplied): 10, uint8(Replied): 11, uint8(Query): 12,
		uint8(Closed): 13, uint8(CookieWait): 14, uint8(CookieEchoed): 15, uint8(SCTPEstablished): 16, uint8(ShutdownSent): 17,
		uint8(ShutdownReceived): 18, uint8(ShutdownAckSent): 19, uint8(HeartbeatSent): 20, uint8(Generic): 21, uint8(states): 22,
		uint8(unacknowledged): 23, uint8(stream): 24, uint8(greStream): 25, uint8(timeouts): 26,
	} {
		if got != want {
			t.Errorf("a state or a timeout has number %d, want %d", got, want)
		}
	}
	if retransmitted != timeout(states) {
		t.Errorf("retransmitted has number %d", retransmitted)
	}
	if unanswered != 0 || answered != 1 || handshaken != 2 || classes != 3 {
		t.Error("a class has changed its number")
	}
	if kindNone != 0 || kindSyn != 1 || kindSynAck != 2 || kindFin != 3 || kindAck != 4 || kindRst != 5 || kinds != 6 {
		t.Error("a kind of segment has changed its number")
	}
	if scales != 1 || sackPermitted != 2 || closing != 4 || unacked != 8 || acked != 16 || lengthUnknown != 32 || liberal != 64 || challenge != 1 || simultaneous != 2 {
		t.Error("a flag has changed its number")
	}
}
