package cluster

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// refused fails the test unless err is a refusal that contains why.
func refused(t *testing.T, what string, err error, why string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: %v, want a refusal: %s", what, err, why)
	}
}

// TestPodUpdate checks that an update cannot remove, change or add the label of a pod, and cannot
// replace the image of fragwall.
func TestPodUpdate(t *testing.T) {
	c := shared
	c.inject(t)
	c.setParameters(t, "default", nil)
	patch := func(p *corev1.Pod, text string) error {
		_, err := c.CoreV1().Pods(p.Namespace).Patch(t.Context(), p.Name, types.StrategicMergePatchType, []byte(text), metav1.PatchOptions{})
		return err
	}
	create := func(p *corev1.Pod) *corev1.Pod {
		p, err := c.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const label = "label fragwall.dev/inject is read when a pod is created"
	guarded := create(pod("all", nil))
	refused(t, "label removed", patch(guarded, `{"metadata":{"labels":{"fragwall.dev/inject":null}}}`), label)
	refused(t, "label changed", patch(guarded, `{"metadata":{"labels":{"fragwall.dev/inject":"false"}}}`), label)
	refused(t, "fragwall replaced", patch(guarded, `{"spec":{"initContainers":[{"name":"fragwall","image":"other"}]}}`), "the image of fragwall in a pod does not change")
	if err := patch(guarded, `{"metadata":{"labels":{"other":"x"}},"spec":{"containers":[{"name":"web","image":"new"}]}}`); err != nil {
		t.Errorf("something else changed: %v", err)
	}
	// The mirror of a static pod is not injected, because no node runs it. It cannot become
	// another kind of pod.
	mirror := pod("must", nil)
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	mirror.Spec.NodeName = "node"
	refused(t, "mirror", patch(create(mirror), `{"metadata":{"annotations":{"kubernetes.io/config.mirror":null}}}`), "may not remove or update mirror pod annotation")
	own := pod("must", nil)
	own.Spec = sidecar(parameters(t), "registry.example/fragwall:default")
	own = create(own)
	refused(t, "own sidecar replaced", patch(own, `{"spec":{"initContainers":[{"name":"fragwall","image":"other"}]}}`), "the image of fragwall in a pod does not change")
	if err := patch(own, `{"spec":{"containers":[{"name":"web","image":"new"}]}}`); err != nil {
		t.Errorf("something else changed: %v", err)
	}
	for namespace, labels := range map[string]map[string]string{"plain": nil, "all": {"fragwall.dev/inject": "false"}} {
		p := create(pod(namespace, labels))
		refused(t, "label set later", patch(p, `{"metadata":{"labels":{"fragwall.dev/inject":"true"}}}`), label)
		if err := patch(p, `{"metadata":{"labels":{"other":"x"}},"spec":{"containers":[{"name":"web","image":"new"}]}}`); err != nil {
			t.Errorf("something else changed: %v", err)
		}
	}
}

// TestEphemeralContainers adds ephemeral containers with and without rights that bypass fragwall.
func TestEphemeralContainers(t *testing.T) {
	c := shared
	c.inject(t)
	for name, p := range map[string]*corev1.Pod{"guarded": pod("all", nil), "without": pod("plain", nil)} {
		c.setParameters(t, "default", nil)
		p, err := c.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		debug := func(e corev1.EphemeralContainer) error {
			q := p.DeepCopy()
			e.Image = "tools"
			q.Spec.EphemeralContainers = append(q.Spec.EphemeralContainers, e)
			q, err := c.CoreV1().Pods(q.Namespace).UpdateEphemeralContainers(t.Context(), q.Name, q, metav1.UpdateOptions{})
			if err == nil {
				p = q
			}
			return err
		}
		with := func(name string, s *corev1.SecurityContext) corev1.EphemeralContainer {
			return corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name, SecurityContext: s}}
		}
		yes := true
		admin := with("admin", &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"Cap_Net_Admin"}}})
		privileged := with("privileged", &corev1.SecurityContext{Privileged: &yes})
		target := with("target", nil)
		target.TargetContainerName = "fragwall"
		mount := with("mount", nil)
		mount.VolumeMounts = []corev1.VolumeMount{{Name: "fragwall-run", MountPath: "/run"}}
		if name == "without" {
			for _, e := range []corev1.EphemeralContainer{with("plain", nil), admin, privileged} {
				if err := debug(e); err != nil {
					t.Errorf("%s: %s: %v", name, e.Name, err)
				}
			}
			if s := p.Spec.EphemeralContainers[0].SecurityContext; s != nil {
				t.Errorf("%s: changed to %v", name, s)
			}
			continue
		}
		refused(t, "admin", debug(admin), "no container but fragwall may add the capabilities NET_ADMIN")
		refused(t, "privileged", debug(privileged), "no container but fragwall may be privileged: privileged")
		refused(t, "target", debug(target), "no ephemeral container may share the processes of fragwall")
		refused(t, "mount", debug(mount), "no other container may mount the volumes fragwall-rules")
		for _, e := range []corev1.EphemeralContainer{with("first", nil), with("second", &corev1.SecurityContext{RunAsUser: new(int64)})} {
			if err := debug(e); err != nil {
				t.Errorf("%s: %v", e.Name, err)
			}
		}
		c.setParameters(t, "remove", settings["remove"])
		if err := debug(admin); err != nil {
			t.Error(err)
		}
		for _, e := range p.Spec.EphemeralContainers {
			if s := e.SecurityContext; s == nil || len(s.Capabilities.Add) != 0 || len(s.Capabilities.Drop) != 5 {
				t.Errorf("%s has %v", e.Name, s)
			}
		}
	}
}

// TestEphemeralContainersLater adds ephemeral containers to pods that exist, but that could not be
// created now.
func TestEphemeralContainersLater(t *testing.T) {
	c := shared
	c.inject(t)
	c.setParameters(t, "default", nil)
	debug := func(p *corev1.Pod) error {
		p = p.DeepCopy()
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "tools"}}}
		_, err := c.CoreV1().Pods(p.Namespace).UpdateEphemeralContainers(t.Context(), p.Name, p, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	create := func(namespace string) *corev1.Pod {
		p, err := c.CoreV1().Pods(namespace).Create(t.Context(), pod(namespace, nil), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	before := create("later")
	for _, label := range []string{"true", "required", "wrong"} {
		text := fmt.Sprintf(`{"metadata":{"labels":{"fragwall.dev/inject":%q}}}`, label)
		if _, err := c.CoreV1().Namespaces().Patch(t.Context(), "later", types.MergePatchType, []byte(text), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		until(t, "label of the namespace", func() error {
			p, err := c.CoreV1().Pods("later").Create(t.Context(), pod("later", nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if (label == "wrong") != (err != nil) || err == nil && len(p.Spec.InitContainers) != 1 {
				return errNotYet
			}
			return nil
		})
		if err := debug(before); err != nil {
			t.Errorf("a pod that is older than the label %s: %v", label, err)
		}
	}
	old := create("must")
	c.setParameters(t, "next", nil)
	if err := debug(old); err != nil {
		t.Errorf("a pod with the previous image: %v", err)
	}
}

// TestReinvocation uses a webhook, like that of a service mesh, that inserts its own container
// before the sidecar. The policy must run again and move the sidecar to the front.
func TestReinvocation(t *testing.T) {
	c := shared
	c.inject(t)
	c.setParameters(t, "default", nil)
	mesh := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		kind := admissionv1.PatchTypeJSONPatch
		review.Response = &admissionv1.AdmissionResponse{
			UID: review.Request.UID, Allowed: true, PatchType: &kind,
			Patch: []byte(`[{"op":"add","path":"/spec/initContainers/0","value":{"name":"mesh","image":"mesh"}}]`),
		}
		review.Request = nil
		_ = json.NewEncoder(w).Encode(review) // the server reports an answer that it cannot read
	}))
	defer mesh.Close()
	none, hooks := admissionregistrationv1.SideEffectClassNone, c.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err := hooks.Create(t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "mesh"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "mesh.example.org", SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL:      &mesh.URL,
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: mesh.Certificate().Raw}),
			},
			ObjectSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"mesh": "true"}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := hooks.Delete(t.Context(), "mesh", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}()
	until(t, "webhook", func() error {
		p, err := c.CoreV1().Pods("all").Create(t.Context(), pod("all", map[string]string{"mesh": "true"}), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return err
		}
		if len(p.Spec.InitContainers) != 2 {
			return errNotYet
		}
		if p.Spec.InitContainers[0].Name != "fragwall" {
			t.Errorf("%s is the first init container", p.Spec.InitContainers[0].Name)
		}
		if s := p.Spec.InitContainers[1].SecurityContext; s == nil || len(s.Capabilities.Drop) != 5 {
			t.Errorf("the inserted container has the rights %v", s)
		}
		return nil
	})
}

// TestParameters checks that the server refuses wrong parameters, and refuses pods while there are
// no parameters.
func TestParameters(t *testing.T) {
	c := shared
	c.inject(t)
	c.setParameters(t, "default", nil)
	for parameter, wrong := range map[string]string{
		"image=":                     "image: the image of fragwall is missing",
		"imagePullPolicy=Sometimes":  "imagePullPolicy: want Always",
		"imagePullSecret=A B":        "imagePullSecret: want the name of an object",
		"nic=eth0/1":                 "nic: want the name of an interface",
		"nic=eth0:1":                 "nic: want the name of an interface",
		"nic=.":                      "nic: want the name of an interface",
		"rules=":                     "rules: the name of the ConfigMap is missing",
		"tokenSecret=../x":           "tokenSecret: want the name of an object",
		"fastPath=on":                "fastPath: want true or false",
		"tunResource=tun":            "tunResource: want the name of a device plugin's resource",
		"tunResource=squat.ai/a tun": "tunResource: want the name of a device plugin's resource",
		"cpuRequest=much":            "cpuRequest: want a quantity",
		"cpuRequest=-1":              "cpuRequest: want a quantity",
		"memoryLimit=1 GB":           "memoryLimit: want a quantity",
		"memoryLimit=100Mi":          "memory: the request is greater than the limit",
		"cpuLimit=1m":                "cpu: the request is greater than the limit",
		"failurePolicy=closed":       "failurePolicy: want Fail",
		"workloadRights=drop":        "workloadRights: want refuse",
		"nics=eth0":                  "unknown: nics; want image",
	} {
		m, err := c.CoreV1().ConfigMaps("fragwall-system").Get(t.Context(), "fragwall-inject", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(parameter, "=")
		m.Data[name] = value
		_, err = c.CoreV1().ConfigMaps(m.Namespace).Update(t.Context(), m, metav1.UpdateOptions{})
		refused(t, parameter, err, wrong)
	}
	if err := c.CoreV1().ConfigMaps("fragwall-system").Delete(t.Context(), "fragwall-inject", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	dry := metav1.CreateOptions{DryRun: []string{"All"}}
	until(t, "refusal without parameters", func() error {
		_, err := c.CoreV1().Pods("all").Create(t.Context(), pod("all", nil), dry)
		if err == nil || !strings.Contains(err.Error(), "no params found") {
			return errNotYet
		}
		return nil
	})
	for name, p := range map[string]*corev1.Pod{
		"other namespace":  pod("plain", nil),
		"namespace, false": pod("off", nil),
		"pod, false":       pod("all", map[string]string{"fragwall.dev/inject": "false"}),
	} {
		if _, err := c.CoreV1().Pods(p.Namespace).Create(t.Context(), p, dry); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExample follows docs/kubernetes.md: it installs with changed parameters by an overlay, shows
// an injected pod by a dry run, applies the example, and removes everything.
func TestExample(t *testing.T) {
	c := shared
	c.inject(t)
	overlay, err := os.MkdirTemp("../kustomize", "test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(overlay)
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(`
resources: [../inject]
configMapGenerator:
  - name: fragwall-inject
    namespace: fragwall-system
    behavior: merge
    literals: [image=registry.example/fragwall:9, cpuLimit=1]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(arguments ...string) string {
		t.Helper()
		said, err := c.kubectl(t, "", arguments...)
		if err != nil {
			t.Fatalf("kubectl %q: %v: %s", arguments, err, said)
		}
		return said
	}
	run("apply", "-k", overlay)
	data := parameters(t)
	data["image"], data["cpuLimit"] = "registry.example/fragwall:9", "1"
	c.wait(t, data)
	m, err := c.CoreV1().ConfigMaps("fragwall-system").Get(t.Context(), "fragwall-inject", metav1.GetOptions{})
	if err != nil || !maps.Equal(m.Data, data) {
		t.Errorf("parameters %v, %v, want %v", m.Data, err, data)
	}
	if probe := run("run", "probe", "--dry-run=server", "-o", "yaml", "--image=x", "--labels=fragwall.dev/inject=true"); !strings.Contains(probe, "image: registry.example/fragwall:9") {
		t.Errorf("the dry run returns %s", probe)
	}

	run("apply", "-k", "../kustomize/inject-example")
	until(t, "pods of the example", func() error {
		pods, err := c.CoreV1().Pods("dns").List(t.Context(), metav1.ListOptions{LabelSelector: "fragwall.dev/inject=true"})
		if err == nil && len(pods.Items) != 2 {
			err = errNotYet
		}
		return err
	})

	run("label", "namespace", "dns", "fragwall.dev/inject-")
	run("delete", "-k", "../kustomize/inject")
	until(t, "removal", func() error {
		p, err := c.CoreV1().Pods("plain").Create(t.Context(), pod("plain", map[string]string{"fragwall.dev/inject": "true"}), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && len(p.Spec.InitContainers) != 0 {
			err = errNotYet
		}
		return err
	})
}
