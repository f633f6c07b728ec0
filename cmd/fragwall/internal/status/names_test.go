package status

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"fragwall/cmd/fragwall/internal/report"
	"fragwall/fastpath"
	"fragwall/packet/verdict"
)

// names returns the names of all metrics.
func names(t *testing.T) map[string]bool {
	t.Helper()
	source, _ := newSource(t)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{source})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, f := range families {
		all[f.GetName()] = true
	}
	return all
}

var (
	metricName = regexp.MustCompile(`\bfragwall_[a-z_]+`)
	reasonName = regexp.MustCompile(`reason="([a-z0-9_]+)"`)
)

// TestNamesElsewhere checks that the dashboard, the alerts and the documentation use only
// existing names, and that the documentation has all of them.
func TestNamesElsewhere(t *testing.T) {
	known := names(t)
	const root = "../../../.."
	reasons := map[string]bool{}
	for r := verdict.Passed + 1; int(r) < verdict.Reasons; r++ {
		reasons[r.String()] = true
	}
	for _, file := range []string{"deploy/grafana/fragwall.json", "deploy/prometheus/fragwall.rules.yml", "docs/operations.md"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range metricName.FindAllString(string(text), -1) {
			if !known[name] && !known[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("%s: metric %s does not exist", file, name)
			}
		}
		for _, m := range reasonName.FindAllStringSubmatch(string(text), -1) {
			if !reasons[m[1]] {
				t.Errorf("%s: reason %s does not exist", file, m[1])
			}
		}
		if file != "docs/operations.md" {
			continue
		}
		for name := range known {
			if !strings.Contains(string(text), "`"+name) {
				t.Errorf("%s: metric %s is not documented", file, name)
			}
		}
		for reason := range reasons {
			if !strings.Contains(string(text), "`"+reason+"`") {
				t.Errorf("%s: reason %s is not documented", file, reason)
			}
		}
	}
}

// TestFastPathReasons checks that docs/fastpath.md documents all reasons for which frames are
// passed up and for which the fast path is off, and no others.
func TestFastPathReasons(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/fastpath.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, off := range []report.Off{report.OffConfiguration, report.OffNoNIC, report.OffBridge, report.OffKernel, report.OffRights, report.OffError} {
		want = append(want, string(off))
	}
	for reason := range fastpath.Reason(fastpath.Reasons) {
		want = append(want, reason.String())
	}
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllSubmatch(text, -1) {
		got = append(got, string(m[1]))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/fastpath.md has %q, want %q", got, want)
	}
}
