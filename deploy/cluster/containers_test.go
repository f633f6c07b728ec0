package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// TestContainers runs the containers of a pod, as the API server stored it, by podman in separate
// namespaces, and sends fragments to it.
func TestContainers(t *testing.T) {
	if *image == "" {
		t.Skip("no -image")
	}
	c := shared
	c.inject(t)
	for _, fast := range []string{"false", "true"} {
		t.Run("fastPath="+fast, func(t *testing.T) {
			c.setParameters(t, "containers", map[string]string{"fastPath": fast})
			text, err := os.ReadFile("testdata/containers/pod.yaml")
			if err != nil {
				t.Fatal(err)
			}
			p := new(corev1.Pod)
			if err := yaml.UnmarshalStrict(text, p); err != nil {
				t.Fatal(err)
			}
			p, err = c.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil {
				t.Fatal(err)
			}
			stored, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			command := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--propagation", "private", "--",
				self, "-test.run", "^TestContainersInside$", "-test.v", "-image", *image)
			command.Env = append(os.Environ(), partVariable+"="+partInside)
			command.Stdin = bytes.NewReader(stored)
			if said, err := command.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, said)
			} else {
				t.Logf("%s", said)
			}
		})
	}
}

// TestContainersInside is the part of TestContainers that runs in the namespaces.
func TestContainersInside(t *testing.T) {
	if part() != partInside {
		t.Skip("a part of TestContainers")
	}
	p := new(corev1.Pod)
	if err := json.NewDecoder(os.Stdin).Decode(p); err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	n.pipeline()
	sidecar := p.Spec.InitContainers[0]
	fast := slices.Contains(sidecar.SecurityContext.Capabilities.Add, "BPF")
	for _, c := range p.Spec.InitContainers {
		n.run(p, &c)
	}
	for _, c := range p.Spec.Containers {
		n.run(p, &c)
	}

	peer := func(part, argument string) (string, error) {
		command := exec.CommandContext(t.Context(), "ip", "netns", "exec", "peer", n.self)
		command.Env = append(os.Environ(), partVariable+"="+part, "ARGUMENT="+argument)
		said, err := command.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return string(said), err
	}
	ask := func(port, size int) error {
		_, err := peer(partAsk, fmt.Sprint(port, size))
		return err
	}
	loaded := func(want string) {
		t.Helper()
		metrics, err := peer(partScrape, "192.0.2.2:9477")
		if err != nil || !strings.Contains(metrics, "\nfragwall_config_last_reload_successful "+want+"\n") {
			t.Errorf("metrics: %v; want fragwall_config_last_reload_successful %s: %s", err, want, metrics)
		}
	}
	until(t, "first answer", func() error { return ask(echoPort, 100) })
	if err := ask(echoPort, 4000); err != nil {
		t.Errorf("a question in fragments: %v", err)
	}
	if err := ask(otherPort, 4000); err == nil {
		t.Error("a question that no rule accepts was answered")
	}
	s := n.status(sidecar.Name)
	if s.Sides["outside"].Reassembled < 2 || s.Sides["inside"].Reassembled < 1 {
		t.Errorf("reassembled %+v", s.Sides)
	}
	if on := s.FastPath.State == "on"; on != fast {
		t.Errorf("fast path %+v", s.FastPath)
	}

	loaded("1")

	// New rules, written as the kubelet does, apply without a new pod.
	n.rules("changed.toml")
	until(t, "reload", func() error {
		if s := n.status(sidecar.Name); s.Policy.Generation != 2 {
			return fmt.Errorf("policy %+v", s.Policy)
		}
		return nil
	})
	if err := ask(otherPort, 4000); err != nil {
		t.Errorf("with the new rules: %v", err)
	}
	if err := ask(echoPort, 4000); err == nil {
		t.Error("with the new rules, a question that only the old ones accept was answered")
	}
	n.rules("broken.toml")
	until(t, "broken rules", func() error {
		if s := n.status(sidecar.Name); s.Policy.Mistake == "" || s.Policy.Generation != 2 {
			return fmt.Errorf("policy %+v", s.Policy)
		}
		return nil
	})
	if err := ask(otherPort, 4000); err != nil {
		t.Errorf("after broken rules: %v", err)
	}
	loaded("0")
}

// node runs containers as a kubelet with a container runtime does, and has a network.
type node struct {
	*testing.T
	dir  string // has the volumes and the workload's root file system
	self string // path of the test binary
	runs int    // calls of rules
}

// newNode makes the namespaces pod and peer, with a cable between them.
func newNode(t *testing.T) *node {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{T: t, dir: t.TempDir(), self: self}
	script := `
mount -t tmpfs none "$1"
mkdir -p /run/netns && mount -t tmpfs none /run/netns
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then # runtimes refuse the hybrid layout
	umount --recursive --lazy /sys/fs/cgroup # lazy, because a Go program has an open file there
	mount -t cgroup2 none /sys/fs/cgroup
fi
for ns in pod peer; do ip netns add $ns; ip -n $ns link set lo up; done
ip -n pod link add eth0 type veth peer name eth0 netns peer
ip -n pod addr add 192.0.2.2/24 dev eth0
ip -n peer addr add 192.0.2.1/24 dev eth0
for ns in pod peer; do ip -n $ns link set eth0 up; done
ip -n pod route add default via 192.0.2.1
mknod -m 666 "$1/tun" c 10 200
mkdir "$1/root" "$1/rules" && cp "$2" "$1/root/test"
`
	n.command("sh", "-euc", script, "sh", n.dir, self)
	t.Cleanup(func() { n.command("umount", n.dir) })
	n.rules("fragwall.toml")
	n.podman("run", "--detach", "--name", containerName("pause"), "--network", "ns:/run/netns/pod", "--cgroups", "disabled",
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--env", partVariable+"="+partPause, "--rootfs", n.dir+"/root", "/test")
	t.Cleanup(func() { n.podman("rm", "--force", "--time", "0", containerName("pause")) })
	return n
}

func containerName(name string) string { return "fragwall-cluster-" + name }

// command runs a program, which must succeed, and returns its output.
func (n *node) command(name string, arguments ...string) string {
	n.Helper()
	said, err := exec.Command(name, arguments...).CombinedOutput() //nolint:noctx // cleaning up comes after the test's context
	if err != nil {
		n.Fatalf("%s %q: %v: %s", name, arguments, err, said)
	}
	return string(said)
}

func (n *node) podman(arguments ...string) string {
	n.Helper()
	return n.command("podman", arguments...)
}

// rules replaces the contents of the rules' volume with a file of testdata, as the kubelet does: it
// changes the target of a symbolic link.
func (n *node) rules(file string) {
	n.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/containers", file))
	if err != nil {
		n.Fatal(err)
	}
	n.runs++
	volume, version := filepath.Join(n.dir, "rules"), fmt.Sprintf("..%d", n.runs)
	if n.runs == 1 {
		err := errors.Join(os.Symlink("..data/fragwall.toml", filepath.Join(volume, "fragwall.toml")),
			os.Symlink("..data/token", filepath.Join(volume, "token")))
		if err != nil {
			n.Fatal(err)
		}
	}
	err = errors.Join(os.Mkdir(filepath.Join(volume, version), 0o755),
		os.WriteFile(filepath.Join(volume, version, "fragwall.toml"), text, 0o644),
		os.WriteFile(filepath.Join(volume, version, "token"), []byte(token), 0o644),
		os.Symlink(version, filepath.Join(volume, "..next")),
		os.Rename(filepath.Join(volume, "..next"), filepath.Join(volume, "..data")))
	if err != nil {
		n.Fatal(err)
	}
}

// run starts a container as the kubelet does. It waits until the startup probe of a sidecar
// succeeds, and until another init container ends.
func (n *node) run(p *corev1.Pod, c *corev1.Container) {
	n.Helper()
	name := containerName(c.Name)
	arguments := []string{
		"run", "--name", name, "--network", "container:" + containerName("pause"), "--cgroups", "disabled",
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--security-opt", "seccomp=unconfined", "--cap-drop", "ALL",
	}
	for _, capability := range capabilities(c.SecurityContext) {
		arguments = append(arguments, "--cap-add", capability)
	}
	if s := c.SecurityContext; s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem {
		arguments = append(arguments, "--read-only", "--read-only-tmpfs=false")
	}
	if s := c.SecurityContext; s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation {
		arguments = append(arguments, "--security-opt", "no-new-privileges")
	}
	if s := c.SecurityContext; s.RunAsUser != nil {
		arguments = append(arguments, "--user", fmt.Sprintf("%d:%d", *s.RunAsUser, *s.RunAsGroup))
	}
	for _, e := range c.Env {
		arguments = append(arguments, "--env", e.Name+"="+e.Value)
	}
	arguments = append(arguments, n.mounts(p, c)...)
	sidecar := c.RestartPolicy != nil
	init := slices.ContainsFunc(p.Spec.InitContainers, func(i corev1.Container) bool { return i.Name == c.Name })
	if sidecar || !init {
		arguments = append(arguments, "--detach")
	}
	if c.Name == "fragwall" {
		arguments = append(arguments, *image)
	} else {
		arguments = append(arguments, "--rootfs", filepath.Join(n.dir, "root"))
	}
	arguments = append(append(arguments, c.Command...), c.Args...)
	n.Cleanup(func() {
		if n.Failed() {
			n.Logf("%s: %s", c.Name, n.podman("logs", name))
		}
		n.podman("rm", "--force", "--time", "10", name)
	})
	n.Logf("%s", n.podman(arguments...))
	if sidecar {
		until(n.T, "startup probe of "+c.Name, func() error {
			said, err := exec.CommandContext(n.Context(), "podman", append([]string{"exec", name}, c.StartupProbe.Exec.Command...)...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, said)
			}
			return err
		})
	}
}

// pipeline checks rules with the command that docs/kubernetes.md recommends for a pipeline.
func (n *node) pipeline() {
	n.Helper()
	dir, err := filepath.Abs("testdata/containers")
	if err != nil {
		n.Fatal(err)
	}
	for rules, code := range map[string]int{"fragwall.toml": 0, "changed.toml": 1, "broken.toml": 2} {
		said, err := exec.CommandContext(n.Context(), "podman", "run", "--rm", "--network", "none", "--cgroups", "disabled",
			"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--volume", dir+":/rules:ro", *image,
			"check", "-c", "/rules/"+rules, "--expect", "/rules/expect.toml").CombinedOutput()
		got := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			n.Fatal(err)
		}
		if got != code {
			n.Errorf("%s: exit code %d, want %d: %s", rules, got, code, said)
		}
	}
}

// mounts returns podman's arguments for the volumes of a container.
func (n *node) mounts(p *corev1.Pod, c *corev1.Container) (arguments []string) {
	n.Helper()
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		switch v := p.Spec.Volumes[i]; {
		case v.Projected != nil:
			arguments = append(arguments, "--volume", filepath.Join(n.dir, "rules")+":"+m.MountPath+":ro")
		case v.EmptyDir != nil:
			path := filepath.Join(n.dir, v.Name, m.SubPath)
			if err := os.MkdirAll(path, 0o777); err != nil {
				n.Fatal(err)
			}
			if m.ReadOnly {
				m.MountPath += ":ro"
			}
			arguments = append(arguments, "--volume", path+":"+m.MountPath)
		case v.HostPath != nil && v.HostPath.Path == "/dev/net/tun":
			arguments = append(arguments, "--device", filepath.Join(n.dir, "tun")+":"+m.MountPath)
		default:
			n.Fatalf("unknown kind of volume: %v", v)
		}
	}
	return arguments
}

// capabilities returns the capabilities that containerd gives a container: its defaults and the
// added ones, without the dropped ones.
func capabilities(s *corev1.SecurityContext) []string {
	names := []string{
		"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
		"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
	}
	if slices.Contains(s.Capabilities.Drop, "ALL") {
		names = nil
	}
	for _, name := range s.Capabilities.Add {
		names = append(names, string(name))
	}
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(s.Capabilities.Drop, corev1.Capability(name)) })
}

// status is a part of the output of "fragwall status --json".
type status struct {
	Sides map[string]struct {
		Reassembled int `json:"reassembled_datagrams"`
	} `json:"sides"`
	FastPath struct {
		State  string `json:"state"`
		Reason string `json:"reason"`
	} `json:"fast_path"`
	Policy struct {
		Generation int    `json:"generation"`
		Mistake    string `json:"mistake"`
	} `json:"policy"`
}

func (n *node) status(container string) (s status) {
	n.Helper()
	said := n.podman("exec", containerName(container), "/usr/bin/fragwall", "status", "-c", "/etc/fragwall/fragwall.toml", "--json")
	if err := json.NewDecoder(strings.NewReader(said)).Decode(&s); err != nil {
		n.Fatal(err)
	}
	return s
}
