package link

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
	"fragwall/tun/lab"
	"fragwall/tun/tap"
)

// TestBridgeCarriesState checks that a bridge stores the former state of the NIC as soon as it
// exists, because the process may be killed then.
func TestBridgeCarriesState(t *testing.T) {
	lanetest.Do(t, network(t).Middle, func() error {
		changes, done := make(chan netlink.LinkUpdate), make(chan struct{})
		if err := netlink.LinkSubscribe(changes, done); err != nil {
			return err
		}
		defer func() {
			close(done)
			for range changes { // the subscription may still send
			}
		}()
		return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: "fw-br", MTU: 1400}, func() error {
			for u := range changes {
				if u.Attrs().Name != "fw-br" {
					continue
				}
				if before, ours := bridgeState(u.Link); !ours || before.mtu != 1500 {
					t.Errorf("the new bridge has the state %+v, %t", before, ours)
				}
				return nil
			}
			return errors.New("the subscription ended")
		})
	})
}

// TestBridgeTakesOver checks that the bridge of a killed process exists until the NIC is in the
// next bridge, which has the same name or another one. The process may be killed at any time.
func TestBridgeTakesOver(t *testing.T) {
	for _, name := range []string{"fw-br", "fw-other"} {
		t.Run(name, func(t *testing.T) {
			lanetest.Do(t, network(t).Middle, func() error {
				tap, err := tap.Open(tun.Config{Name: "fw-in", MTU: 1400, Queues: 1})
				if err != nil {
					return err
				}
				left, err := Join(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: "fw-br", MTU: 1400})
				if err := errors.Join(err, tap.Close()); err != nil {
					return err
				}
				changes, done := make(chan netlink.LinkUpdate, 1000), make(chan struct{})
				if err := netlink.LinkSubscribe(changes, done); err != nil {
					return err
				}
				defer func() {
					close(done)
					for range changes { // the subscription may still send
					}
				}()
				return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: name, MTU: 1400}, func() error {
					taken := false
					for u := range changes {
						master := u.Attrs().MasterIndex
						switch {
						case u.Attrs().Index == left.NIC && master != 0 && master != left.master:
							taken = true
						case u.Header.Type == unix.RTM_DELLINK && u.Attrs().Index == left.master && u.IfInfomsg.Family == unix.AF_UNSPEC:
							if !taken {
								t.Error("the bridge was removed while the nic was in it")
							}
							return nil
						}
					}
					return errors.New("the subscription ended")
				})
			})
		})
	}
}

// TestRenamedBridgeGoes checks that an empty renamed bridge is removed: a process was killed after
// the NIC left the renamed bridge of an earlier killed process.
func TestRenamedBridgeGoes(t *testing.T) {
	for method, bridge := range methods {
		t.Run(method, func(t *testing.T) {
			lanetest.Do(t, network(t).Middle, func() error {
				return unchangedBy(t, func() error {
					attributes := netlink.NewLinkAttrs()
					attributes.Name = "fw-left0"
					attributes.Group = nicState{up: true}.mark()
					if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
						return err
					}
					return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1400}, func() error { return nil })
				})
			})
		})
	}
}
