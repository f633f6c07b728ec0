package wire

import (
	"testing"
	"testing/synctest"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

func TestModeValidate(t *testing.T) {
	inEachFamily(t, Config{Policy: onlyPort53(), Mode: packet.ModeValidate}, func(b *testWire, allowed, denied [][]byte) {
		// In order, each fragment is forwarded at once.
		for _, frame := range allowed {
			b.send(verdict.Inside, frame)
			b.expect(verdict.Outside, frame)
		}
		b.counted(verdict.Inside, 3, 3, 0, nil)
		// Before the first arrives, the others are held.
		b.send(verdict.Inside, allowed[2], denied[1], allowed[1])
		b.expect(verdict.Outside)
		b.counted(verdict.Inside, 6, 3, 3, nil)
		b.send(verdict.Inside, denied[0], allowed[0], denied[2])
		b.expect(verdict.Outside, allowed...)
		b.counted(verdict.Inside, 9, 6, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 3})
	})
}

// TestValidateTimersRun reaches the deadline of a fragment whose first does not arrive.
func TestValidateTimersRun(t *testing.T) {
	inEachFamily(t, Config{Policy: acceptAll(), Mode: packet.ModeValidate}, func(b *testWire, allowed, _ [][]byte) {
		b.send(verdict.Inside, allowed[1])
		time.Sleep(time.Minute + expiryInterval)
		synctest.Wait()
		b.counted(verdict.Inside, 1, 0, 0, map[verdict.Reason]uint64{verdict.FragmentTimeout: 1})
	})
}
