package deploy

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// built returns the objects of a kustomization, by kind and name, in the namespace of a release of
// the chart.
func built(t *testing.T, path string) map[string]runtime.Object {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), path)
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return byName(t, strings.ReplaceAll(string(manifests), "fragwall-system", "default"))
}

// byName decodes manifests strictly, and returns the objects by kind and name.
func byName(t *testing.T, manifests string) map[string]runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, admissionregistrationv1.AddToScheme, monitoringv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	objects := map[string]runtime.Object{}
	for text := range strings.SplitSeq(manifests, "\n---") {
		if strings.Trim(text, "- \n") == "" {
			continue
		}
		o, _, err := decoder.Decode([]byte(text), nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		m, err := meta.Accessor(o)
		if err != nil {
			t.Fatal(err)
		}
		m.SetLabels(nil) // the labels of the release
		name := o.GetObjectKind().GroupVersionKind().Kind + " " + m.GetNamespace() + "/" + m.GetName()
		if objects[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		objects[name] = o
	}
	return objects
}

// rendered returns the objects of the chart with values, by kind and name.
func rendered(t *testing.T, values string) map[string]runtime.Object {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	manifests, err := render(t, file)
	if err != nil {
		t.Fatal(err)
	}
	return byName(t, manifests)
}

// TestAgree checks that the chart installs the same objects as the kustomizations, including the
// parameters.
func TestAgree(t *testing.T) {
	for path, values := range map[string]string{
		"kustomize/inject":  "inject: {enabled: true}\n",
		"kustomize/monitor": "inject: {enabled: true}\npodMonitor: {enabled: true}\nprometheusRule: {enabled: true}\n",
	} {
		want, got := built(t, path), rendered(t, values)
		delete(want, "Namespace /default")
		if len(want) == 0 {
			t.Errorf("%s: no objects", path)
		}
		for name, o := range want {
			if !reflect.DeepEqual(got[name], o) {
				t.Errorf("%s: the chart and %s differ", name, path)
			}
		}
		for name := range got {
			if want[name] == nil && path == "kustomize/inject" {
				t.Errorf("%s: only the chart has it", name)
			}
		}
	}
}

// TestMonitorLabels checks that the objects for the Prometheus operator have the labels by which
// it selects them.
func TestMonitorLabels(t *testing.T) {
	file := filepath.Join(t.TempDir(), "values.yaml")
	values := "inject: {enabled: true}\npodMonitor: {enabled: true, labels: {release: a}}\nprometheusRule: {enabled: true, labels: {release: b}}\n"
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	manifests, err := render(t, file)
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{}
	for _, text := range strings.Split(manifests, "\n---") {
		var o metav1.PartialObjectMetadata
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		labels[o.Kind] += o.Labels["release"]
	}
	if labels["PodMonitor"] != "a" || labels["PrometheusRule"] != "b" {
		t.Errorf("labels %v", labels)
	}
}

// TestPrometheusRule checks that the PrometheusRule has the alerts that promtool tests.
func TestPrometheusRule(t *testing.T) {
	text, err := os.ReadFile("prometheus/fragwall.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(text, &want); err != nil {
		t.Fatal(err)
	}
	got := built(t, "kustomize/monitor")["PrometheusRule default/fragwall"].(*monitoringv1.PrometheusRule)
	if len(want.Groups) == 0 || !reflect.DeepEqual(got.Spec, want) {
		t.Errorf("the alerts of helm/fragwall/monitor/prometheusrule.yaml and prometheus/fragwall.rules.yml differ")
	}
}

// TestChartInject checks that the chart passes its values to the parameters.
func TestChartInject(t *testing.T) {
	m, _ := rendered(t, `
image: {repository: registry.example/fragwall, tag: "9", pullPolicy: Always}
nic: net1
fastPath: {enabled: true}
tunResource: squat.ai/tun
resources: {requests: {cpu: 1}, limits: {cpu: 2, memory: 1Gi}}
inject: {enabled: true, imagePullSecret: registry, rules: common, tokenSecret: "", failurePolicy: Ignore, workloadRights: remove}
`)["ConfigMap default/fragwall-inject"].(*corev1.ConfigMap)
	want := map[string]string{
		"image": "registry.example/fragwall:9", "imagePullPolicy": "Always", "imagePullSecret": "registry", "nic": "net1",
		"rules": "common", "tokenSecret": "", "fastPath": "true", "tunResource": "squat.ai/tun", "cpuRequest": "1",
		"memoryRequest": "128Mi", "cpuLimit": "2", "memoryLimit": "1Gi", "failurePolicy": "Ignore", "workloadRights": "remove",
	}
	if m == nil || !reflect.DeepEqual(m.Data, want) {
		t.Errorf("%v, want %v", m, want)
	}

	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte("inject: {enabled: true}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := renderFor(t, "v1.35.4-gke.1", values); err == nil || !strings.Contains(err.Error(), "needs Kubernetes 1.36") {
		t.Errorf("an older Kubernetes: %v", err)
	}
}

// TestPolicies checks that variables with the same name have the same expression in all policies,
// because policies cannot share variables. It also checks that the policy for the parameters knows
// all of them.
func TestPolicies(t *testing.T) {
	expressions := map[string]string{}
	add := func(policy, name, expression string) {
		expression = strings.Join(strings.Fields(expression), " ")
		if other, ok := expressions[name]; ok && other != expression {
			t.Errorf("%s: variable %s has another expression elsewhere: %s", policy, name, other)
		}
		expressions[name] = expression
	}
	objects := built(t, "kustomize/inject")
	for name, o := range objects {
		switch o := o.(type) {
		case *admissionregistrationv1.MutatingAdmissionPolicy:
			for _, v := range o.Spec.Variables {
				add(name, v.Name, v.Expression)
			}
		case *admissionregistrationv1.ValidatingAdmissionPolicy:
			if o.Name != "fragwall-inject" {
				continue // about another object, or about an update
			}
			for _, v := range o.Spec.Variables {
				add(name, v.Name, v.Expression)
			}
		}
	}
	if len(expressions) == 0 {
		t.Error("no variables")
	}
	known := objects["ValidatingAdmissionPolicy /fragwall-parameters"].(*admissionregistrationv1.ValidatingAdmissionPolicy).Spec.Variables
	for key := range objects["ConfigMap default/fragwall-inject"].(*corev1.ConfigMap).Data {
		if !slices.ContainsFunc(known, func(v admissionregistrationv1.Variable) bool {
			return v.Name == "known" && strings.Contains(v.Expression, `"`+key+`"`)
		}) {
			t.Errorf("the policy does not know parameter %s", key)
		}
	}
}

// TestSidecarsAgree checks that the injected container, as an API server stored it, equals the
// container of the component, apart from the image and the ports.
func TestSidecarsAgree(t *testing.T) {
	text, err := os.ReadFile("cluster/testdata/default/bare.golden")
	if err != nil {
		t.Fatal(err)
	}
	injected := byName(t, string(text))["Pod all/bare"].(*corev1.Pod).Spec.InitContainers[0]
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "kustomize/example")
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range decode(t, string(manifests)) {
		d, ok := o.(*appsv1.Deployment)
		if !ok {
			continue
		}
		legacyscheme.Scheme.Default(d)
		want := d.Spec.Template.Spec.InitContainers[0]
		injected.Image, injected.Ports = want.Image, want.Ports
		if !reflect.DeepEqual(injected, want) {
			t.Errorf("injected\n%+v\nwant\n%+v", injected, want)
		}
	}
}
