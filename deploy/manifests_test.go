package deploy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const chartPath = "helm/fragwall"

// decode decodes manifests as the API server does: unknown and repeated fields are errors, as are
// the errors of its validation.
func decode(t *testing.T, manifests string) (objects []runtime.Object) {
	t.Helper()
	decoder := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	for text := range strings.SplitSeq(manifests, "\n---") {
		if strings.Trim(text, "- \n") == "" {
			continue
		}
		o, _, err := decoder.Decode([]byte(text), nil, nil)
		if err == nil {
			err = validate(o)
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		objects = append(objects, o)
	}
	return objects
}

// validate sets the defaults of a new object and validates it, as the API server does.
func validate(o runtime.Object) error {
	o = o.DeepCopyObject()
	legacyscheme.Scheme.Default(o)
	internal, err := legacyscheme.Scheme.ConvertToVersion(o, runtime.InternalGroupVersioner)
	if err != nil {
		return err
	}
	if m, err := meta.Accessor(internal); err == nil && m.GetNamespace() == "" {
		m.SetNamespace("default")
	}
	switch o := internal.(type) {
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(o, podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)).ToAggregate()
	case *apps.StatefulSet:
		return appsvalidation.ValidateStatefulSet(o, appsvalidation.StatefulSetValidationOptions{}, podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)).ToAggregate()
	case *apps.DaemonSet:
		return appsvalidation.ValidateDaemonSet(o, podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)).ToAggregate()
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o).ToAggregate()
	case *core.Service:
		return corevalidation.ValidateServiceCreate(o).ToAggregate()
	}
	return fmt.Errorf("no validation of %T", internal)
}

// render returns the manifests of the chart, with the values in files, for a version of Kubernetes
// that supports all features of the chart.
func render(t *testing.T, files ...string) (string, error) {
	t.Helper()
	return renderFor(t, "v1.36.0", files...)
}

func renderFor(t *testing.T, kubernetes string, files ...string) (string, error) {
	t.Helper()
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion.Version = kubernetes
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
	all, err := chartutil.ToRenderValues(chart, values, chartutil.ReleaseOptions{Name: "dns", Namespace: "default"}, capabilities)
	if err != nil {
		return "", err
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
	checkSidecar(t, decode(t, manifests), hostDevice)

	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte("tunResource: example.org/tun\nfastPath: {enabled: true}\nnic: net1\nimage: {tag: \"9\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if manifests, err = render(t, chartPath+"/values-dns.yaml", values); err != nil {
		t.Fatal(err)
	}
	checkSidecar(t, decode(t, manifests), fastPath)
	for _, want := range []string{"example.org/tun: 1", `--nic, "net1"`, `"fragwall:9"`} {
		if !strings.Contains(manifests, want) {
			t.Errorf("no %q in\n%s", want, manifests)
		}
	}

	if err := os.WriteFile(values, []byte("image: {pullPolicy: Sometimes}\nnics: eth1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = render(t, chartPath+"/values-dns.yaml", values)
	for _, want := range []string{"image/pullPolicy", "'nics' not allowed"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("wrong values: %v, want %q", err, want)
		}
	}
	if _, err := render(t); err == nil || !strings.Contains(err.Error(), "no workload given") {
		t.Errorf("without a workload: %v", err)
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
	checkSidecar(t, decode(t, string(manifests)), hostDevice)
}

// TestKustomizeKinds checks that the components apply to each kind of workload, and that the
// sidecar is before the workload's own init containers.
func TestKustomizeKinds(t *testing.T) {
	const workload = `
apiVersion: apps/v1
kind: %s
metadata: {name: x}
spec:
  selector: {matchLabels: {app: x}}
  template:
    metadata: {labels: {app: x}}
    spec:
      initContainers:
        - {name: first, image: x}
      containers:
        - {name: x, image: x}
`
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		files := filesys.MakeFsInMemory()
		for _, name := range []string{"sidecar/kustomization.yaml", "sidecar/sidecar.yaml", "fast-path/kustomization.yaml", "fast-path/capabilities.yaml"} {
			text, err := os.ReadFile("kustomize/" + name)
			if err != nil {
				t.Fatal(err)
			}
			if err := files.WriteFile("/"+name, text); err != nil {
				t.Fatal(err)
			}
		}
		for name, text := range map[string]string{
			"workload.yaml":      fmt.Sprintf(workload, kind),
			"kustomization.yaml": "resources: [workload.yaml]\ncomponents: [../sidecar, ../fast-path]\nconfigMapGenerator: [{name: fragwall, literals: [fragwall.toml=]}]\n",
		} {
			if err := files.WriteFile("/own/"+name, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, "/own")
		if err != nil {
			t.Fatal(err)
		}
		manifests, err := resources.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		checkSidecar(t, decode(t, string(manifests)), hostDevice|fastPath)
	}
}

// TestCopies checks that the copy of the example's rules equals the original. The copy exists
// because kustomize reads no files outside its directory.
func TestCopies(t *testing.T) {
	kept, err := os.ReadFile("kustomize/dns/fragwall.toml")
	if err != nil {
		t.Fatal(err)
	}
	original, err := os.ReadFile("../examples/sidecar.toml")
	if err != nil || !bytes.Equal(kept, original) {
		t.Errorf("kustomize/dns/fragwall.toml is not examples/sidecar.toml: %v", err)
	}
}

// option is a feature that only some sidecars have.
type option int

const (
	hostDevice option = 1 << iota // /dev/net/tun is mounted by hostPath
	fastPath                      // CAP_BPF
)

// capabilities returns the capabilities of a sidecar with these options.
func (o option) capabilities() (names []string) {
	if names = []string{"NET_ADMIN"}; o&fastPath != 0 {
		names = append(names, "BPF")
	}
	return names
}

// checkSidecar checks that a workload has a complete sidecar.
func checkSidecar(t *testing.T, objects []runtime.Object, options option) {
	t.Helper()
	var pod corev1.PodSpec
	configMaps := map[string]bool{}
	for _, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			pod = o.Spec.Template.Spec
		case *appsv1.StatefulSet:
			pod = o.Spec.Template.Spec
		case *appsv1.DaemonSet:
			pod = o.Spec.Template.Spec
		case *corev1.ConfigMap:
			configMaps[o.Name] = true
		}
	}
	if len(pod.InitContainers) == 0 || pod.InitContainers[0].Name != "fragwall" {
		t.Fatalf("init containers %v: fragwall is not the first", pod.InitContainers)
	}
	c := pod.InitContainers[0]
	if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Error("the container is not a sidecar")
	}
	s := c.SecurityContext
	var added []string
	for _, name := range s.Capabilities.Add {
		added = append(added, string(name))
	}
	if !slices.Equal(added, options.capabilities()) || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("capabilities %v", s.Capabilities)
	}
	if s.Privileged != nil || *s.RunAsNonRoot || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem {
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
	if mounted["/run"].EmptyDir == nil {
		t.Error("no volume for the state, which must outlive the container")
	}
	for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe} {
		if probe == nil || !slices.Equal(probe.Exec.Command, []string{"/usr/bin/fragwall", "status", "-c", "/etc/fragwall/fragwall.toml"}) {
			t.Errorf("%s probe %v", name, probe)
		}
	}
	if (mounted["/dev/net/tun"].HostPath != nil) != (options&hostDevice != 0) {
		t.Errorf("/dev/net/tun from %v", mounted["/dev/net/tun"])
	}
	checkSecurity(t, &pod, options)
}

// checkSecurity checks which settings of the pod the level "baseline" of the Pod Security Standards
// does not allow: only the capabilities and the device of the sidecar, as the documentation says.
func checkSecurity(t *testing.T, pod *corev1.PodSpec, options option) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	level := api.LevelVersion{Level: api.LevelBaseline, Version: api.LatestVersion()}
	for _, r := range evaluator.EvaluatePod(level, &metav1.ObjectMeta{}, pod) {
		if !r.Allowed {
			got = append(got, r.ForbiddenReason+": "+r.ForbiddenDetail)
		}
	}
	names := options.capabilities()
	slices.Sort(names)
	want := []string{`non-default capabilities: container "fragwall" must not include "` + strings.Join(names, `", "`) + `" in securityContext.capabilities.add`}
	if options&hostDevice != 0 {
		want = append(want, `hostPath volumes: volume "dev-net-tun"`)
	}
	if !slices.Equal(got, want) {
		t.Errorf("not allowed by level baseline: %q, want %q", got, want)
	}
}

// TestCompose reads the Compose file as Docker Compose does, and checks that the files it names
// exist.
func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"compose/compose.yaml"}, cli.WithName("dns"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := project.Services["fragwall"]
	if !slices.Equal(s.CapAdd, []string{"NET_ADMIN"}) || !slices.Equal(s.CapDrop, []string{"ALL"}) || s.Privileged || !s.ReadOnly {
		t.Errorf("not a sidecar with one capability: %+v", s)
	}
	dns := project.Services["dns"]
	if dns.NetworkMode != "service:fragwall" || dns.DependsOn["fragwall"].Condition != types.ServiceConditionHealthy {
		t.Errorf("the workload does not wait for the sidecar: %+v", dns)
	}
	for _, s := range project.Services {
		for _, v := range s.Volumes {
			if v.Type == "bind" {
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("%s: %v", s.Name, err)
				}
			}
		}
	}
}
