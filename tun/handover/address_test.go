package handover

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAddressLivesOn(t *testing.T) {
	m := parse(t, unix.RTM_NEWADDR, slaac)
	later, alive := addressFor(m, 7, 600)
	if got, want := addressWords(later), "2001:db8:3::5/64 mngtmpaddr valid_lft 3000 preferred_lft 1200"; !alive || got != want {
		t.Errorf("alive %v, %s; want %s", alive, got, want)
	}
	if addressIndex(later) != 7 || addressIndex(m) != 2 {
		t.Errorf("devices %d and %d", addressIndex(later), addressIndex(m))
	}
	if got := addressWords(m); !strings.Contains(got, "valid_lft 3600") {
		t.Errorf("the original changed: %s", got)
	}
	deprecated, alive := addressFor(m, 7, 2000)
	if got, want := addressWords(deprecated), "2001:db8:3::5/64 mngtmpaddr valid_lft 1600 preferred_lft 0"; !alive || got != want {
		t.Errorf("alive %v, %s; want %s", alive, got, want)
	}
	if _, alive := addressFor(m, 7, 3600); alive {
		t.Error("the address is valid after its lifetime")
	}
}
