package wire

import (
	"errors"
	"testing"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

func TestRefusedFramesAreCounted(t *testing.T) {
	whole := packettest.UDP(client4, server4, nil).Frame()
	fragments := packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)
	b, d := scripted(&script{left: 3, end: tun.ErrClosed, refuseEach: 3,
		batch: []tun.Frame{{Data: whole}, {Data: fragments[0]}, {Data: fragments[1]}}})
	defer b.table.Close()
	if err := d.run(); !errors.Is(err, tun.ErrClosed) {
		t.Fatal(err)
	}
	s := b.Counters(verdict.Inside)
	if s.Received() != 9 || s.Forwarded != 6 || s.Waiting != 0 || s.Dropped[verdict.EgressFailed] != 3 {
		t.Errorf("%+v", s)
	}
}
