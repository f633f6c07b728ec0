package link

import (
	"errors"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
	"fragwall/tun/lab"
	"fragwall/tun/netdev"
	"fragwall/tun/tap"
)

// otherPriority is the priority of another program's filters.
const otherPriority = 77

// addOtherFilters adds filters of another program to a NIC's classifier.
func addOtherFilters(nic netlink.Link) (err error) {
	for _, hook := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		err = errors.Join(err, netlink.FilterAdd(&netlink.U32{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: nic.Attrs().Index, Parent: hook, Priority: otherPriority, Protocol: unix.ETH_P_ALL},
			Sel:         &netlink.TcU32Sel{Flags: nl.TC_U32_TERMINAL},
			ClassId:     netlink.MakeHandle(1, 1),
		}))
	}
	return err
}

// otherFilters returns the number of hooks with filters of another program.
func otherFilters(nic netlink.Link) (n int) {
	for _, hook := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		list, err := netlink.FilterList(nic, hook)
		if err == nil && slices.ContainsFunc(list, func(f netlink.Filter) bool { return f.Attrs().Priority == otherPriority }) {
			n++
		}
	}
	return n
}

// TestFiltersOfOthersStay adds another program's filters to the classifier of a redirect, and
// removes the redirect. Neither its repair nor its end may remove the other filters.
func TestFiltersOfOthersStay(t *testing.T) {
	ends := map[string]func(*tap.TAP, *Junction) error{
		"closed": func(_ *tap.TAP, j *Junction) error { return j.Close() },
		"killed": func(tap *tap.TAP, _ *Junction) error {
			return errors.Join(tap.Close(), Release(lab.InsideNIC, ""))
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			lanetest.Do(t, network(t).Middle, func() error {
				tap, err := tap.Open(tun.Config{Name: "fw-in", MTU: 1400, Queues: 1})
				if err != nil {
					return err
				}
				defer tap.Close()
				j, err := Join(Config{TAP: "fw-in", NIC: lab.InsideNIC, MTU: 1400})
				if err != nil {
					return err
				}
				nic, err := netlink.LinkByIndex(j.NIC)
				if err := errors.Join(err, addOtherFilters(nic)); err != nil {
					return err
				}
				for _, r := range leftRedirects(nic) {
					err = errors.Join(err, r.Remove())
				}
				if whole, _ := j.Intact(); whole {
					t.Error("the redirect still exists")
				}
				err = errors.Join(err, j.Repair())
				if whole, _ := j.Intact(); !whole || otherFilters(nic) != 2 {
					t.Errorf("repaired: %t, other filters at %d hooks", whole, otherFilters(nic))
				}
				err = errors.Join(err, end(tap, j))
				if others := otherFilters(nic); others != 2 || len(leftRedirects(nic)) != 0 {
					t.Errorf("left: %+v, other filters at %d hooks", leftRedirects(nic), others)
				}
				return err
			})
		})
	}
}

// TestRedirectRepaired removes the classifier of either device, and checks that Repair adds the
// redirect again.
func TestRedirectRepaired(t *testing.T) {
	lanetest.Do(t, network(t).Middle, func() error {
		return unchangedBy(t, func() error {
			tap, err := tap.Open(tun.Config{Name: "fw-in", MTU: 1400, Queues: 1})
			if err != nil {
				return err
			}
			defer tap.Close()
			j, err := Join(Config{TAP: "fw-in", NIC: lab.InsideNIC, MTU: 1400})
			if err != nil {
				return err
			}
			for _, index := range []int{j.NIC, j.tap} {
				device, err := netlink.LinkByIndex(index)
				if err := errors.Join(err, netdev.RemoveClassifier(index)); err != nil {
					return err
				}
				if whole, _ := j.Intact(); whole {
					t.Errorf("%s: the redirect still exists", device.Attrs().Name)
				}
				if err := j.Repair(); err != nil {
					return err
				}
				if whole, _ := j.Intact(); !whole {
					t.Errorf("%s: the redirect is not repaired", device.Attrs().Name)
				}
			}
			return errors.Join(j.Close(), tap.Close())
		})
	})
}
