package fastpath

import (
	"os"
	"os/exec"
	"testing"
)

// TestRights checks that CAP_BPF and CAP_NET_ADMIN suffice.
func TestRights(t *testing.T) {
	const inside = "FRAGWALL_TEST_RIGHTS"
	if os.Getenv(inside) != "" {
		_ = open(t, Options{})
		return
	}
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("only root can drop all other rights")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("setpriv", "--bounding-set=-all,+bpf,+net_admin", self, "-test.run=^TestRights$", "-test.v")
	c.Env = append(os.Environ(), inside+"=1", "CI=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
