package wire

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"fragwall/filter"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// panics is set for the process of which one direction panics.
const panics = "FRAGWALL_TEST_PANICS"

type panicking struct{ tun.Lane }

func (panicking) Read() ([]tun.Frame, error) { panic("broken lane") }
func (panicking) Close() error               { return nil }

// TestPanicEndsTheProcess has a mistake in one direction take the other along:
// half a wire looks like a whole one to those on it.
func TestPanicEndsTheProcess(t *testing.T) {
	if os.Getenv(panics) != "" {
		waits := tuntest.NewPort("outside").Lane(tuntest.NewPort("inside"))
		b := New(Config{Sides: [verdict.Sides]SideConfig{{[]tun.Lane{panicking{}}, 1500}, {[]tun.Lane{waits}, 1500}}, Policy: &filter.Policy{}})
		_ = b.Run(t.Context())
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestPanicEndsTheProcess$")
	c.Env = append(os.Environ(), panics+"=1")
	output, err := c.CombinedOutput()
	if err == nil || !bytes.Contains(output, []byte("panic: broken lane")) {
		t.Errorf("%v:\n%s", err, output)
	}
}
