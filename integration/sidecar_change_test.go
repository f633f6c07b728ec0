package integration_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fragwall/tun/handover"
	"fragwall/tun/lab"
)

// as returns a copy of the snapshot in which a device has another name.
func (s namespaceState) as(name, other string) namespaceState {
	renamed := make(namespaceState)
	for subject, lines := range s {
		for _, line := range lines {
			for _, key := range []string{"dev", "ifname", "label"} {
				line = strings.ReplaceAll(line, fmt.Sprintf("%q:%q", key, name), fmt.Sprintf("%q:%q", key, other))
			}
			renamed[subject] = append(renamed[subject], line)
		}
	}
	return renamed
}

// TestSidecarNICRenamed renames the NIC while the sidecar runs, and after a sidecar was killed. The
// program must find the NIC by its index and restore it. After a kill, --nic may be the old name or the
// new one.
func TestSidecarNICRenamed(t *testing.T) {
	for _, join := range []string{"", "nic = \"eth0\"\njoin = \"bridge\"\n"} {
		configuration := strings.Replace(sidecarRules, "[policy]", join+"[policy]", 1)
		t.Run("stopped, "+join, func(t *testing.T) {
			p, state := bridgedPod(t), t.TempDir()
			before := snapshot(t, p.workload.Namespace)
			b := p.startSidecar(t, configuration, state)
			ip(t, p.workload.Namespace, "link set eth0 name net1")
			eachFamily(t, func(t *testing.T, ipv6 bool) { exchange(t, p.workload, p.peer, ipv6, []int{4000}) })
			b.end(t)
			sameSnapshot(t, before.as("eth0", "net1"), snapshot(t, p.workload.Namespace))
			emptyState(t, state)
		})
		for _, name := range []string{"eth0", "net1"} {
			t.Run("killed, "+name+", "+join, func(t *testing.T) {
				p, state := bridgedPod(t), t.TempDir()
				before := snapshot(t, p.workload.Namespace)
				p.startSidecar(t, configuration, state).kill(t)
				ip(t, p.workload.Namespace, "link set eth0 name net1")
				r := launch(t, p.workload.Namespace, nil, "sidecar", "--restore", "--nic", name, "--state", state)
				if code := r.wait(t); code != 0 {
					t.Fatalf("exit code %d:\n%s", code, r.stderr.String())
				}
				sameSnapshot(t, before.as("eth0", "net1"), snapshot(t, p.workload.Namespace))
				emptyState(t, state)
			})
		}
	}
}

// emptyState checks that the state directory is empty.
func emptyState(t *testing.T, directory string) {
	t.Helper()
	left, err := os.ReadDir(directory)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("files in the state directory: %v", left)
	}
}

// TestSidecarRestoresChanges changes the configuration of the TAP while the sidecar runs, as when
// a virtual address fails over. After the sidecar has ended, the NIC must have the configuration that the
// TAP had.
func TestSidecarRestoresChanges(t *testing.T) {
	for _, ending := range []string{"stopped", "killed"} {
		t.Run(ending, func(t *testing.T) {
			p, state := bridgedPod(t), t.TempDir()
			b := p.startSidecar(t, sidecarRules, state)
			ip(t, p.workload.Namespace, `
				addr del 10.244.1.7/24 dev fw-in
				addr add 10.244.1.8/24 dev fw-in
				route del default via 10.244.1.1 dev fw-in src 10.244.1.5
				route append default via 10.244.1.9 dev fw-in src 10.244.1.5
				route add 10.128.0.0/10 via 10.244.1.1 dev fw-in table 200
				route del 10.64.0.0/10 tos 0x10 via 10.244.1.1 dev fw-in table 100
				neigh del 10.244.1.99 dev fw-in
				neigh add 10.244.1.98 lladdr 02:00:00:00:00:02 dev fw-in nud permanent
				-6 addr del fd00:244:1::7/64 dev fw-in
				-6 addr add fd00:244:1::8/64 dev fw-in nodad
				-6 route add 2001:db8:8::/48 via fd00:244:1::1 dev fw-in`)
			want := snapshot(t, p.workload.Namespace)
			if ending == "stopped" {
				b.end(t)
			} else {
				awaitState(t, state, "10.244.1.8/24", "10.128.0.0/10", "10.244.1.98", "fd00:244:1::8/64", "2001:db8:8::/48")
				b.kill(t)
				p.restore(t, state)
			}
			emptyState(t, state)
			now := snapshot(t, p.workload.Namespace)
			for _, subject := range []string{"route", "route6", "neigh", "proxy"} {
				was := slices.DeleteFunc(want.as("fw-in", "eth0")[subject], func(line string) bool { return strings.Contains(line, `"learnt"`) })
				for _, line := range was {
					if !slices.Contains(now[subject], line) {
						t.Errorf("%s lacks %s; it has\n%s", subject, line, strings.Join(now[subject], "\n"))
					}
				}
			}
			addr := strings.Join(now["addr"], "\n")
			for address, there := range map[string]bool{
				`"10.244.1.7"`: false, `"10.244.1.8"`: true, `"fd00:244:1::7"`: false, `"fd00:244:1::8"`: true, `"10.244.1.5"`: true,
			} {
				if strings.Contains(addr, address) != there {
					t.Errorf("address %s exists: %v, want %v\n%s", address, !there, there, addr)
				}
			}
			if text := ip(t, p.workload.Namespace, "route show table all\nneigh show"); strings.Contains(text, "tos 0x10") || strings.Contains(text, "10.244.1.99") {
				t.Errorf("a removed route or neighbour was restored:\n%s", text)
			}
		})
	}
}

// awaitState waits until the stored state contains words in the syntax of ip(8).
func awaitState(t *testing.T, directory string, words ...string) {
	t.Helper()
	eventually(t, func() error {
		files, err := filepath.Glob(filepath.Join(directory, "*.json"))
		if err != nil || len(files) != 1 {
			return fmt.Errorf("state files %v, %v", files, err)
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			return err
		}
		var state handover.State
		if err := json.Unmarshal(text, &state); err != nil {
			return err
		}
		plan := strings.Join(state.Plan("fw-in", ""), "\n")
		for _, w := range words {
			if !strings.Contains(plan, w) {
				return fmt.Errorf("no %s in the state\n%s", w, plan)
			}
		}
		return nil
	})
}

// TestSidecarNothingToRestore checks the message if there is nothing to restore.
func TestSidecarNothingToRestore(t *testing.T) {
	p := routedPod(t)
	before := snapshot(t, p.workload.Namespace)
	r := launch(t, p.workload.Namespace, nil, "sidecar", "--restore", "--nic", "eth0", "--state", t.TempDir())
	if code := r.wait(t); code != 0 || !strings.Contains(r.stderr.String(), "nothing to restore") {
		t.Errorf("exit code %d:\n%s", code, r.stderr.String())
	}
	sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
}

// TestSidecarKeepsState removes the NIC while the sidecar runs, so that the sidecar cannot
// restore it. The sidecar must store the state, and the next one, with another NIC of the same name, must
// keep it as orphaned.
func TestSidecarKeepsState(t *testing.T) {
	p, state := bridgedPod(t), t.TempDir()
	b := p.startSidecar(t, sidecarRules, state)
	must(t, p.workload.Do(func() error { return remove("eth0") }))
	b.signal(t, 15)
	if code := b.wait(t); code != 1 || !strings.Contains(b.stderr.String(), "--restore") {
		t.Errorf("exit code %d:\n%s", code, b.stderr.String())
	}
	r := launch(t, p.workload.Namespace, nil, "sidecar", "--restore", "--nic", "eth0", "--state", state)
	if code := r.wait(t); code != 1 || !strings.Contains(r.stderr.String(), "is kept in") {
		t.Errorf("exit code %d:\n%s", code, r.stderr.String())
	}
	ip(t, p.workload.Namespace, "link add eth0 type veth peer name far0\nlink set eth0 up\naddr add 10.244.1.5/24 dev eth0")
	b = p.startSidecar(t, sidecarRules, state)
	if said := b.stderr.String(); !strings.Contains(said, "orphaned") {
		t.Errorf("the log does not say that a state is orphaned:\n%s", said)
	}
	b.end(t)
	files, err := filepath.Glob(filepath.Join(state, "*"))
	must(t, err)
	if len(files) != 1 || !strings.HasSuffix(files[0], ".orphaned") {
		t.Errorf("files in the state directory: %v, want one .orphaned", files)
	}
}

// TestRunNICRenamed renames the NICs while the program runs. At its end, the program must restore the
// settings of both.
func TestRunNICRenamed(t *testing.T) {
	n, err := lab.New()
	must(t, err)
	t.Cleanup(n.Close)
	awaitLinkLocal(t, n)
	before := describe(t, n.Middle)
	b := &box{Network: n}
	b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, devices+"mtu = 1400\n"+acceptAll))
	b.ready(t)
	ip(t, n.Middle, "link set "+lab.InsideNIC+" name net9\nlink set "+lab.OutsideNIC+" name net8")
	b.stop(t)
	ip(t, n.Middle, "link set net9 name "+lab.InsideNIC+"\nlink set net8 name "+lab.OutsideNIC)
	sameAs(t, n.Middle, before)
}

// TestSidecarAdopts adds an address and a route to the NIC while the sidecar runs, as a program does that
// does not know the TAP. The sidecar must move them to the TAP.
func TestSidecarAdopts(t *testing.T) {
	p := bridgedPod(t)
	b := p.startSidecar(t, sidecarRules, t.TempDir())
	ip(t, p.workload.Namespace, `
		addr add 198.18.7.7/24 dev eth0
		route add 198.18.9.0/24 via 198.18.7.1 dev eth0
		-6 addr add fd00:244:7::7/64 dev eth0 nodad`)
	eventually(t, func() error {
		text := ip(t, p.workload.Namespace, "addr show dev fw-in\nroute show dev fw-in")
		for _, want := range []string{"198.18.7.7/24", "198.18.9.0/24 via 198.18.7.1", "fd00:244:7::7/64"} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("no %s in\n%s", want, text)
			}
		}
		if left := ip(t, p.workload.Namespace, "addr show dev eth0\nroute show dev eth0"); strings.Contains(left, "198.18.") || strings.Contains(left, "fd00:244:7") {
			return fmt.Errorf("the nic still has\n%s", left)
		}
		return nil
	})
	b.end(t)
	text := ip(t, p.workload.Namespace, "addr show dev eth0\nroute show dev eth0")
	for _, want := range []string{"198.18.7.7/24", "198.18.9.0/24 via 198.18.7.1", "fd00:244:7::7/64"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestSidecarNICReplaced removes the pod's cable and adds a new one while the sidecar runs. The sidecar
// must join the new NIC, and restore its configuration at the end.
func TestSidecarNICReplaced(t *testing.T) {
	p, state := routedPod(t), t.TempDir()
	b := p.startSidecar(t, sidecarRules, state)
	mark := len(b.stderr.String())
	must(t, p.workload.Do(func() error { return remove("eth0") }))
	b.stderr.await(t, b.process, mark, `nic removed`)
	must(t, lab.Cable(p.workload.Namespace, "eth0", p.peer.Namespace, "cali0"))
	ip(t, p.peer.Namespace, `
		link set cali0 up mtu 1480 address ee:ee:ee:ee:ee:ee
		addr add 169.254.1.1/32 dev cali0
		route add 10.1.1.5/32 dev cali0
		addr add fe80::ee/64 dev cali0 nodad
		route add 2001:db8:1::5/128 dev cali0`)
	b.stderr.await(t, b.process, mark, `joined again`)
	eventually(t, func() error { return answers(p.workload, p.peer) })
	b.end(t)
	emptyState(t, state)
	text := ip(t, p.workload.Namespace, "addr show dev eth0\nroute show dev eth0")
	for _, want := range []string{"10.1.1.5/32", "2001:db8:1::5/128", "default via 169.254.1.1"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	eventually(t, func() error { return answers(p.workload, p.peer) })
}
