package status

import (
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"fragwall/packet/verdict"
)

var update = flag.Bool("update", false, "write meanings.json from docs/operations.md")

// meaning is the documentation of a reason.
type meaning struct {
	Means string `json:"means"`
	Do    string `json:"do"`
}

var (
	reasonRow = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| (.+) \\| (.+) \\|$")
	link      = regexp.MustCompile(`\[([^]]*)\]\(([^)]*)\)`)
	quoted    = regexp.MustCompile("`([^`]*)`")
)

// plain removes the markup from a table cell. It names the file of a link to another document.
func plain(text string) string {
	text = link.ReplaceAllStringFunc(text, func(m string) string {
		parts := link.FindStringSubmatch(m)
		file, _, _ := strings.Cut(parts[2], "#")
		if file == "" || strings.HasSuffix(parts[1], ".md") {
			return parts[1]
		}
		return parts[1] + ": docs/" + file
	})
	return quoted.ReplaceAllString(text, "$1")
}

// documented returns the documentation of each reason in docs/operations.md.
func documented(t *testing.T) map[string]meaning {
	t.Helper()
	text, err := os.ReadFile("../../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, reasons, _ := strings.Cut(string(text), "\n## Reasons\n")
	reasons, _, _ = strings.Cut(reasons, "\n## ")
	all := map[string]meaning{}
	for _, row := range reasonRow.FindAllStringSubmatch(reasons, -1) {
		all[row[1]] = meaning{Means: plain(row[2]), Do: plain(row[3])}
	}
	return all
}

// TestMeanings checks that the page shows the meanings that docs/operations.md documents.
func TestMeanings(t *testing.T) {
	want := documented(t)
	for reason := verdict.Passed + 1; int(reason) < verdict.Reasons; reason++ {
		if want[reason.String()] == (meaning{}) {
			t.Errorf("docs/operations.md: no row for %s", reason)
		}
	}
	if len(want) != verdict.Reasons-1 {
		t.Errorf("docs/operations.md has %d reasons, want %d", len(want), verdict.Reasons-1)
	}
	text, err := json.MarshalIndent(want, "", "  ") // escapes characters that would end the script
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("meanings.json", append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if meanings != string(text)+"\n" {
		t.Error("meanings.json differs from docs/operations.md; run go test ./cmd/fragwall/internal/status -run Meanings -update")
	}
}
