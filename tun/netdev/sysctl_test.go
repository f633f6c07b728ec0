package netdev_test

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"fragwall/tun/internal/lanetest"
	"fragwall/tun/netdev"
)

func TestSysctl(t *testing.T) {
	if value, err := netdev.Sysctl("kernel/ostype"); err != nil || value != "Linux" {
		t.Errorf("%q, %v", value, err)
	}
	if _, err := netdev.Sysctl("net/not/there"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if old, err := netdev.SwapSysctl("net/not/there", "1"); old != "" || err != nil {
		t.Errorf("%q, %v", old, err)
	}
	names, err := netdev.Sysctls("net/ipv4/conf/lo")
	if err != nil || !slices.Contains(names, "rp_filter") {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := netdev.Sysctls("net/not/there"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestSwapSysctl(t *testing.T) {
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		name := netdev.IPv6Switch("lo")
		for _, step := range []struct{ value, old string }{{"1", "0"}, {"1", ""}, {"0", "1"}} {
			if old, err := netdev.SwapSysctl(name, step.value); old != step.old || err != nil {
				t.Errorf("set to %s: it was %q, %v; want %q", step.value, old, err, step.old)
			}
			if now, err := netdev.Sysctl(name); now != step.value || err != nil {
				t.Errorf("set to %s: it is %q, %v", step.value, now, err)
			}
		}
		return nil
	})
}
