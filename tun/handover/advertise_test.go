package handover

import (
	"encoding/hex"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAdvertisement(t *testing.T) {
	m := parse(t, unix.RTM_NEWROUTE, learntDefault)
	got := hex.EncodeToString(advertisement(m, []byte{2, 0, 0, 0, 0, 9}))
	want := strings.Join(strings.Fields(`
		333300000001 020000000001 86dd
		60000000 0020 3a ff fe800000000000000000000000000001 ff020000000000000000000000000001
		86 00 2728 40 08 0708 00000000 00000000
		01 01 020000000009
		05 01 0000 000005dc`), "")
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
