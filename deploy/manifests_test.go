package deploy

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const chartPath = "helm/fragwall"

// decode reads manifests with the types of the Kubernetes API. Unknown and
// repeated fields are errors.
func decode(t *testing.T, manifests string) (objects []runtime.Object) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	for text := range strings.SplitSeq(manifests, "\n---") {
		if strings.Trim(text, "- \n") == "" {
			continue
		}
		o, _, err := decoder.Decode([]byte(text), nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		objects = append(objects, o)
	}
	return objects
}

// render returns what the chart makes of values.
func render(t *testing.T, files ...string) (string, error) {
	t.Helper()
	chart, err := loader.Load(chartPath)
	if err != nil {
		t.Fatal(err)
	}
	values := chartutil.Values{}
	for _, f := range files {
		v, err := chartutil.ReadValuesFile(f)
		if err != nil {
			t.Fatal(err)
		}
		values = chartutil.CoalesceTables(v, values)
	}
	all, err := chartutil.ToRenderValues(chart, values, chartutil.ReleaseOptions{Name: "dns", Namespace: "default"}, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := engine.Render(chart, all)
	var manifests strings.Builder
	for name, text := range rendered {
		if strings.HasSuffix(name, ".yaml") {
			manifests.WriteString("\n---\n" + text)
		}
	}
	return manifests.String(), err
}

func TestChart(t *testing.T) {
	manifests, err := render(t, chartPath+"/values-dns.yaml")
	if err != nil {
		t.Fatal(err)
	}
	checkSidecar(t, decode(t, manifests), true)

	tun := filepath.Join(t.TempDir(), "tun.yaml")
	if err := os.WriteFile(tun, []byte("tunResource: example.org/tun\nnic: net1\nimage: {tag: \"9\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if manifests, err = render(t, chartPath+"/values-dns.yaml", tun); err != nil {
		t.Fatal(err)
	}
	checkSidecar(t, decode(t, manifests), false)
	for _, want := range []string{"example.org/tun: 1", `--nic, "net1"`, `"fragwall:9"`} {
		if !strings.Contains(manifests, want) {
			t.Errorf("no %q in\n%s", want, manifests)
		}
	}

	if _, err := render(t); err == nil || !strings.Contains(err.Error(), "the workload is missing") {
		t.Errorf("a chart without a workload: %v", err)
	}
}

func TestChartLint(t *testing.T) {
	values, err := chartutil.ReadValuesFile(chartPath + "/values-dns.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lint := action.NewLint()
	lint.Strict = true
	for _, m := range lint.Run([]string{chartPath}, values).Messages {
		if m.Severity > support.InfoSev {
			t.Error(m)
		}
	}
}

func TestKustomize(t *testing.T) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "kustomize/example")
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	checkSidecar(t, decode(t, string(manifests)), true)
}

// TestCopies keeps the copy of the example's rules true: kustomize reads no
// files from elsewhere.
func TestCopies(t *testing.T) {
	kept, err := os.ReadFile("kustomize/example/fragwall.toml")
	if err != nil {
		t.Fatal(err)
	}
	original, err := os.ReadFile("../examples/sidecar.toml")
	if err != nil || !bytes.Equal(kept, original) {
		t.Errorf("kustomize/example/fragwall.toml is not examples/sidecar.toml: %v", err)
	}
}

// checkSidecar looks for what a sidecar needs in a workload.
func checkSidecar(t *testing.T, objects []runtime.Object, hostDevice bool) {
	t.Helper()
	var pod corev1.PodSpec
	configMaps := map[string]bool{}
	for _, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			pod = o.Spec.Template.Spec
		case *corev1.ConfigMap:
			configMaps[o.Name] = true
		}
	}
	if len(pod.InitContainers) != 1 {
		t.Fatalf("%d init containers", len(pod.InitContainers))
	}
	c := pod.InitContainers[0]
	if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Error("it is no sidecar")
	}
	s := c.SecurityContext
	if !slices.Equal(s.Capabilities.Add, []corev1.Capability{"NET_ADMIN"}) || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("capabilities %v", s.Capabilities)
	}
	if s.Privileged != nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem {
		t.Errorf("security context %v", s)
	}
	volumes := map[string]corev1.Volume{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = v
	}
	mounted := map[string]corev1.Volume{}
	for _, m := range c.VolumeMounts {
		v, ok := volumes[m.Name]
		if !ok {
			t.Errorf("no volume %q", m.Name)
		}
		mounted[m.MountPath] = v
	}
	if v := mounted["/etc/fragwall"]; v.ConfigMap == nil || !configMaps[v.ConfigMap.Name] {
		t.Errorf("rules from %v, of %v", v, configMaps)
	}
	if mounted["/run/fragwall"].EmptyDir == nil {
		t.Error("the state does not outlive the container")
	}
	if (mounted["/dev/net/tun"].HostPath != nil) != hostDevice {
		t.Errorf("/dev/net/tun from %v", mounted["/dev/net/tun"])
	}
}

// TestCompose reads the Compose file's syntax, and looks for the files that it
// names.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile("compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct{ Volumes []string }
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Services) != 2 {
		t.Errorf("services %v", file.Services)
	}
	for name, s := range file.Services {
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if _, err := os.Stat(filepath.Join("compose", source)); strings.HasPrefix(source, ".") && err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
