package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// settings are the changes of the parameters for each directory of testdata.
var settings = map[string]map[string]string{
	"default": nil,
	"remove":  {"workloadRights": "remove"},
	"allow":   {"workloadRights": "allow"},
	"open":    {"failurePolicy": "Ignore"},
	"chosen": {
		"imagePullPolicy": "Always", "imagePullSecret": "registry", "nic": "net1",
		"rules": "common", "tokenSecret": "", "fastPath": "true", "tunResource": "squat.ai/tun",
		"cpuRequest": "1", "cpuLimit": "2", "memoryRequest": "", "memoryLimit": "1Gi",
	},
	"least": { // only the image
		"imagePullPolicy": "-", "imagePullSecret": "-", "nic": "-", "rules": "-", "tokenSecret": "-", "fastPath": "-",
		"tunResource": "-", "cpuRequest": "-", "cpuLimit": "-", "memoryRequest": "-", "memoryLimit": "-",
		"failurePolicy": "-", "workloadRights": "-",
	},
}

// TestStored sends the objects of each YAML file of testdata to the API server, and compares the
// pods that it stores, the refusals and the warnings with the golden file.
func TestStored(t *testing.T) {
	c := shared
	c.inject(t)
	for name, changes := range settings {
		files, err := filepath.Glob(filepath.Join("testdata", name, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no pods for %s: %v", name, err)
		}
		c.setParameters(t, name, changes)
		for _, file := range files {
			t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".yaml"), func(t *testing.T) {
				got := c.stored(t, file)
				golden := strings.TrimSuffix(file, ".yaml") + ".golden"
				if *update {
					if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if got != string(want) {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}

// TestManyContainers checks that a large pod does not exceed the server's cost limit for the
// expressions of a policy.
func TestManyContainers(t *testing.T) {
	c := shared
	c.inject(t)
	c.setParameters(t, "default", nil)
	p := pod("must", nil)
	rights := &corev1.SecurityContext{Capabilities: &corev1.Capabilities{
		Add: []corev1.Capability{"CHOWN", "FOWNER", "KILL"}, Drop: []corev1.Capability{"SETGID", "SETUID", "SETPCAP", "SETFCAP"},
	}}
	p.Spec.Containers = nil
	for i := range 100 {
		name := fmt.Sprint("c", i)
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: "/var/lib/a/path/of/a/workload/" + name},
		}})
		var mounts []corev1.VolumeMount
		for _, v := range p.Spec.Volumes {
			mounts = append(mounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
		}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Image: "web", SecurityContext: rights, VolumeMounts: mounts})
	}
	p, err := c.CoreV1().Pods("must").Create(t.Context(), p, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Spec.InitContainers) != 1 || len(p.Spec.Containers[99].SecurityContext.Capabilities.Drop) != 9 {
		t.Errorf("stored %v and %v", p.Spec.InitContainers, p.Spec.Containers[99].SecurityContext)
	}
}

// inject applies the manifests, and makes the namespaces of the tests unless they exist.
func (c *cluster) inject(t *testing.T) {
	t.Helper()
	if said, err := c.kubectl(t, "", "apply", "-k", "../kustomize/inject"); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	for name, label := range map[string]string{"plain": "", "all": "true", "must": "required", "wrong": "yes", "off": "false", "later": ""} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if label != "" {
			ns.Labels = map[string]string{"fragwall.dev/inject": label}
		}
		if _, err := c.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		until(t, "service account of "+name, func() error {
			_, err := c.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
			return err
		})
	}
}

// errNotYet is an error of functions that until calls again.
var errNotYet = errors.New("not yet")

// until calls f until it succeeds, for up to a minute.
func until(t *testing.T, what string, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// setParameters sets the parameters to their defaults with changes; the value "-" removes a
// parameter. It returns when both policies use them. The image, which contains the name of the
// setting, shows this.
func (c *cluster) setParameters(t *testing.T, name string, changes map[string]string) {
	t.Helper()
	data := parameters(t)
	for key, value := range changes {
		if data[key] = value; value == "-" {
			delete(data, key)
		}
	}
	if data["image"] = "registry.example/fragwall:" + name; name == "containers" {
		data["image"] = *image
	}
	m, err := c.CoreV1().ConfigMaps("fragwall-system").Get(t.Context(), "fragwall-inject", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.Data = data
	if _, err := c.CoreV1().ConfigMaps(m.Namespace).Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.wait(t, data)
	c.warnings.taken()
}

// wait waits until both policies use the parameters in data.
func (c *cluster) wait(t *testing.T, data map[string]string) {
	t.Helper()
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	until(t, "mutation", func() error {
		p := pod("plain", map[string]string{"fragwall.dev/inject": "true"})
		p, err := c.CoreV1().Pods("plain").Create(t.Context(), p, dry)
		if err == nil && (len(p.Spec.InitContainers) == 0 || p.Spec.InitContainers[0].Image != data["image"] ||
			(len(p.Spec.InitContainers[0].SecurityContext.Capabilities.Add) == 2) != (data["fastPath"] == "true")) {
			err = fmt.Errorf("not injected: %v", p.Spec.InitContainers)
		}
		return err
	})
	until(t, "validation", func() error {
		p := pod("must", nil)
		p.Spec = sidecar(data, data["image"])
		_, err := c.CoreV1().Pods("must").Create(t.Context(), p, dry)
		if err != nil {
			return err
		}
		p.Spec.InitContainers[0].Image = "other"
		if _, err := c.CoreV1().Pods("must").Create(t.Context(), p, dry); err == nil {
			return fmt.Errorf("no policy refuses a sidecar that differs from the required one")
		}
		return nil
	})
}

// sidecar returns the spec of a pod that already has a sidecar like the injected one.
func sidecar(parameters map[string]string, image string) corev1.PodSpec {
	always := corev1.ContainerRestartPolicyAlways
	nic := parameters["nic"]
	if nic == "" {
		nic = "eth0"
	}
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{
		Command: []string{"/usr/bin/fragwall", "status", "-c", "/etc/fragwall/fragwall.toml"},
	}}}
	s := pod("", nil).Spec
	s.InitContainers = []corev1.Container{{
		Name: "fragwall", Image: image, RestartPolicy: &always, StartupProbe: probe, LivenessProbe: probe,
		Args: []string{"sidecar", "-c", "/etc/fragwall/fragwall.toml", "--nic", nic, "--watch-config"},
	}}
	s.Containers[0].SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	return s
}

// parameters returns the parameters of the manifest.
func parameters(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../kustomize/inject/parameters.properties")
	if err != nil {
		t.Fatal(err)
	}
	data := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			data[key] = value
		}
	}
	return data
}

// pod returns a pod with one container.
func pod(namespace string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-", Namespace: namespace, Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
	}
}

// stored creates the objects in file, and returns the stored pods, the reasons of refusals and the
// server's warnings.
func (c *cluster) stored(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for manifest := range bytes.SplitSeq(text, []byte("\n---\n")) {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(manifest, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.create(t, o)
		if err != nil {
			fmt.Fprintf(&said, "# refused: %v\n", err)
		}
		for _, w := range c.warnings.taken() {
			fmt.Fprintf(&said, "# warning: %s\n", w)
		}
		if p != nil {
			said.WriteString("---\n" + normal(t, p))
		}
	}
	return said.String()
}

// create creates o and returns its pod.
func (c *cluster) create(t *testing.T, o runtime.Object) (*corev1.Pod, error) {
	t.Helper()
	ctx, options := t.Context(), metav1.CreateOptions{}
	var of metav1.Object
	var err error
	switch o := o.(type) {
	case *corev1.Pod:
		return c.createPod(t, o)
	case *appsv1.Deployment:
		of, err = c.AppsV1().Deployments(o.Namespace).Create(ctx, o, options)
	case *appsv1.StatefulSet:
		of, err = c.AppsV1().StatefulSets(o.Namespace).Create(ctx, o, options)
	case *appsv1.DaemonSet:
		c.node(t)
		of, err = c.AppsV1().DaemonSets(o.Namespace).Create(ctx, o, options)
	case *batchv1.Job:
		of, err = c.BatchV1().Jobs(o.Namespace).Create(ctx, o, options)
	case *batchv1.CronJob:
		of, err = c.BatchV1().CronJobs(o.Namespace).Create(ctx, o, options)
	default:
		t.Fatalf("unknown kind of object: %T", o)
	}
	if err != nil {
		return nil, err
	}
	return c.podOf(t, of)
}

// createPod creates a pod. Before, it makes a dry run, which must have the same result.
func (c *cluster) createPod(t *testing.T, p *corev1.Pod) (*corev1.Pod, error) {
	t.Helper()
	dry, dryErr := c.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	c.warnings.taken()
	stored, err := c.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{})
	if fmt.Sprint(err) != fmt.Sprint(dryErr) {
		t.Errorf("the dry run returns %v, want %v", dryErr, err)
	}
	if err != nil {
		return nil, err
	}
	if a, b := normal(t, dry), normal(t, stored); a != b {
		t.Errorf("the dry run returns\n%s\nwant\n%s", a, b)
	}
	return stored, nil
}

// node creates a node, because a DaemonSet makes one pod per node.
func (c *cluster) node(t *testing.T) {
	t.Helper()
	n, err := c.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Spec.Taints = nil // removes the taint of a node that is not ready
	if _, err := c.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// generated matches the name of a pod that a controller made.
var generated = regexp.MustCompile(`(pods "\S+-)[a-z0-9]{5}"`)

// podOf returns the pod that a controller made for o, or the error of making it. The pod's label
// app has the name of o.
func (c *cluster) podOf(t *testing.T, o metav1.Object) (p *corev1.Pod, refused error) {
	t.Helper()
	until(t, "pod of "+o.GetName(), func() error {
		pods, err := c.CoreV1().Pods(o.GetNamespace()).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + o.GetName()})
		if err != nil {
			return err
		}
		if len(pods.Items) > 0 {
			p = &pods.Items[0]
			return nil
		}
		events, err := c.CoreV1().Events(o.GetNamespace()).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=FailedCreate"})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.HasPrefix(e.InvolvedObject.Name, o.GetName()) {
				refused = fmt.Errorf("%s: %s", e.InvolvedObject.Kind, generated.ReplaceAllString(e.Message, "$1*\""))
				return nil
			}
		}
		return fmt.Errorf("no pod and no event")
	})
	return p, refused
}

// normal returns a stored pod as YAML, without the values that differ between runs.
func normal(t *testing.T, p *corev1.Pod) string {
	t.Helper()
	p = p.DeepCopy()
	if p.GenerateName != "" {
		p.Name = p.GenerateName + "*"
	}
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	p.UID, p.ResourceVersion, p.CreationTimestamp, p.ManagedFields = "", "", metav1.Time{}, nil
	for i := range p.OwnerReferences {
		p.OwnerReferences[i].UID = "*"
	}
	for _, key := range []string{"controller-uid", "batch.kubernetes.io/controller-uid"} {
		if _, ok := p.Labels[key]; ok {
			p.Labels[key] = "*"
		}
	}
	p.Status = corev1.PodStatus{}
	text, err := yaml.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range p.Spec.Volumes {
		if strings.HasPrefix(v.Name, "kube-api-access-") {
			text = bytes.ReplaceAll(text, []byte(v.Name), []byte("kube-api-access-*"))
		}
	}
	return string(text)
}
