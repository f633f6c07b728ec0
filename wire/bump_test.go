package wire

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"fragwall/filter"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// TestStopDropsIncompleteDatagrams stops the wire with a fragment in the table.
func TestStopDropsIncompleteDatagrams(t *testing.T) {
	var b *testWire
	run(t, acceptAll(), func(running *testWire) {
		b = running
		b.send(verdict.Inside, packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)[0])
	})
	if n := b.Counters(verdict.Inside).Dropped[verdict.FragmentShutdown]; n != 1 {
		t.Errorf("%d dropped, want 1", n)
	}
}

// TestLaneFailureEndsAll has one lane fail while another blocks in Read.
func TestLaneFailureEndsAll(t *testing.T) {
	broken := &script{end: errors.New("read tap \"x\": device removed")}
	waits := tuntest.NewPort("outside").Lane(tuntest.NewPort("inside"))
	b := New(Config{Sides: sides(broken, waits), Policy: acceptAll()})
	err := b.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "inside: read tap") {
		t.Errorf("%v", err)
	}
}

// panics is set in the environment of the process in which one direction panics.
const panics = "FRAGWALL_TEST_PANICS"

type panicking struct{ tun.Lane }

func (panicking) Read() ([]tun.Frame, error) { panic("broken lane") }

func (panicking) Close() error { return nil }

// TestPanicEndsTheProcess has one direction panic. The process must end: hosts cannot tell a
// wire that forwards in only one direction from a working one.
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
