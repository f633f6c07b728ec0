// Package fragwall has no code. Its test checks which package may import which.
package fragwall

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "fragwall"

// allowed lists, for each package, exactly the packages of this module that it imports.
// Packages that may import any are not in the list.
var allowed = map[string][]string{
	"packet/verdict":  {},
	"packet/checksum": {},
	"packet":          {"packet/checksum", "packet/verdict"},
	"packet/reject":   {"packet", "packet/checksum"},

	"filter/flow": {"packet", "packet/verdict"},
	"filter":      {"filter/flow", "packet", "packet/verdict"},
	"rules":       {"filter", "packet", "packet/verdict"},

	"stack/gvisor": {"packet", "packet/verdict"},
	"stack":        {"packet", "packet/verdict", "stack/gvisor"},

	"tun":               {"packet/checksum"},
	"tun/capture":       {},
	"tun/device":        {"tun", "tun/uring"},
	"tun/handover":      {"packet/checksum", "tun/netdev"},
	"tun/internal/gate": {"tun"},
	"tun/lab":           {"packet/verdict"},
	"tun/link":          {"tun/netdev"},
	"tun/netdev":        {},
	"tun/shared":        {},
	"tun/tap":           {"tun", "tun/internal/gate", "tun/netdev", "tun/shared", "tun/ufo"},
	"tun/tuntest":       {"tun"},
	"tun/ufo":           {"packet/checksum", "tun"},
	"tun/uring":         {"tun", "tun/internal/gate", "tun/tap", "tun/ufo"},

	"wire": {"filter", "filter/flow", "packet", "packet/reject", "packet/verdict", "stack", "tun"},

	"fastpath": {"filter", "filter/flow", "packet", "packet/verdict", "tun/shared", "wire"},

	"cmd/fragwall/internal/confine":  {},
	"cmd/fragwall/internal/exit":     {},
	"cmd/fragwall/internal/explain":  {"cmd/fragwall/internal/listing", "cmd/fragwall/internal/terminal", "filter", "filter/flow", "packet", "packet/verdict", "rules", "wire"},
	"cmd/fragwall/internal/inspect":  {"cmd/fragwall/internal/control", "cmd/fragwall/internal/exit", "cmd/fragwall/internal/explain", "cmd/fragwall/internal/listing", "cmd/fragwall/internal/terminal", "rules", "wire"},
	"cmd/fragwall/internal/lastgood": {"cmd/fragwall/internal/private"},
	"cmd/fragwall/internal/private":  {},
	"cmd/fragwall/internal/takeover": {},
	"cmd/fragwall/internal/standby":  {},
	"cmd/fragwall/internal/listing":  {"cmd/fragwall/internal/selector", "cmd/fragwall/internal/terminal", "filter", "filter/flow", "packet", "packet/verdict", "rules", "stack", "wire"},
	"cmd/fragwall/internal/selector": {"filter", "packet", "packet/verdict", "rules"},
	"cmd/fragwall/internal/terminal": {},
	"cmd/fragwall/internal/datapath": {"packet/verdict", "rules", "stack", "wire"},
	"cmd/fragwall/internal/record":   {"packet", "packet/verdict", "rules", "wire"},
	"cmd/fragwall/internal/events":   {"cmd/fragwall/internal/record", "filter", "packet", "packet/verdict", "rules", "wire"},
	"cmd/fragwall/internal/report":   {"cmd/fragwall/internal/events", "cmd/fragwall/internal/record", "cmd/fragwall/internal/terminal", "fastpath", "filter", "filter/flow", "packet", "packet/verdict", "stack", "wire"},
	"cmd/fragwall/internal/history":  {"cmd/fragwall/internal/report", "packet/verdict", "wire"},
	"cmd/fragwall/internal/status":   {"cmd/fragwall/internal/exit", "cmd/fragwall/internal/history", "cmd/fragwall/internal/listing", "cmd/fragwall/internal/report", "cmd/fragwall/internal/selector", "cmd/fragwall/internal/terminal", "fastpath", "packet/verdict", "rules", "wire"},
	"cmd/fragwall/internal/control":  {"cmd/fragwall/internal/exit", "cmd/fragwall/internal/report"},
	"cmd/fragwall/internal/box":      {"cmd/fragwall/internal/datapath", "cmd/fragwall/internal/events", "cmd/fragwall/internal/report", "fastpath", "filter", "filter/flow", "packet", "packet/verdict", "rules", "tun", "tun/device", "tun/link", "tun/netdev", "wire"},
	"cmd/fragwall/internal/replay":   {"cmd/fragwall/internal/datapath", "cmd/fragwall/internal/exit", "cmd/fragwall/internal/record", "cmd/fragwall/internal/report", "cmd/fragwall/internal/terminal", "filter", "packet", "packet/checksum", "packet/verdict", "rules", "tun", "tun/capture", "wire"},
	"cmd/fragwall/internal/daemon":   {"cmd/fragwall/internal/box", "cmd/fragwall/internal/confine", "cmd/fragwall/internal/control", "cmd/fragwall/internal/datapath", "cmd/fragwall/internal/events", "cmd/fragwall/internal/exit", "cmd/fragwall/internal/history", "cmd/fragwall/internal/inspect", "cmd/fragwall/internal/lastgood", "cmd/fragwall/internal/listing", "cmd/fragwall/internal/private", "cmd/fragwall/internal/report", "cmd/fragwall/internal/status", "cmd/fragwall/internal/takeover", "cmd/fragwall/internal/trace", "fastpath", "packet/verdict", "rules", "tun/handover", "wire"},
	"cmd/fragwall/internal/sidecar":  {"cmd/fragwall/internal/box", "cmd/fragwall/internal/confine", "cmd/fragwall/internal/daemon", "packet/verdict", "rules", "tun/handover", "tun/link", "tun/netdev"},
	"cmd/fragwall/internal/demo":     {"cmd/fragwall/internal/box", "cmd/fragwall/internal/report", "cmd/fragwall/internal/terminal", "packet", "packet/checksum", "packet/verdict", "rules", "tun/lab"},

	"cmd/fragwall/internal/frametext": {"packet", "packet/verdict", "rules"},
	"cmd/fragwall/internal/trace":     {"cmd/fragwall/internal/control", "cmd/fragwall/internal/exit", "cmd/fragwall/internal/frametext", "cmd/fragwall/internal/record", "cmd/fragwall/internal/selector", "filter", "filter/flow", "packet", "packet/verdict", "tun/capture", "wire"},
}

// unrestricted may import any package of this module: the command line, and this package, which
// has no code. The packages of testCode and below may too.
var unrestricted = []string{".", "cmd/fragwall"}

// testCode lists packages that the program must not link, including those below them.
var testCode = []string{"docs/doctest", "integration", "packet/packettest", "tun/internal/lanetest", "tun/tuntest", "cmd/fragwall/internal/box/boxtest", "cmd/fragwall/internal/golden", "testing"}

// importers lists, for each module of others, the packages that may import it, including those
// below them. The packages of testCode may too.
var importers = map[string][]string{
	"gvisor.dev/gvisor":              {"stack/gvisor"},
	"github.com/vishvananda/netlink": {"tun"},
	"github.com/songgao/water":       {"tun/tap"},
	"github.com/cilium/ebpf":         {"fastpath", "tun/shared", "tun/tap"},
	"github.com/gaissmai/bart":       {"filter"},
	"github.com/BurntSushi/toml":     {"rules"},
}

// unreachable lists what a package must not import, directly or indirectly: packages of this
// module, including those below them, and modules of others.
var unreachable = map[string][]string{
	"wire":         {"cmd", "fastpath", "tun/netdev", "github.com/vishvananda/netlink", "github.com/songgao/water", "github.com/cilium/ebpf"},
	"tun":          {"github.com/vishvananda/netlink", "github.com/songgao/water", "github.com/cilium/ebpf"},
	"rules":        {"stack", "tun", "wire"},
	"cmd/fragwall": testCode,
}

// TestImports checks the lists above. It reads the files itself, so that the test cache notices
// changed files.
func TestImports(t *testing.T) {
	imports := read(t)
	var broken []string
	for name, of := range imports {
		may, restricted := allowed[name]
		if free := slices.Contains(unrestricted, name) || slices.ContainsFunc(testCode, contains(name)); !free && !restricted {
			broken = append(broken, "there is no rule for "+name)
		}
		for _, other := range of {
			if _, ours := imports[other]; ours && restricted && !slices.Contains(may, other) {
				broken = append(broken, name+" imports "+other)
			}
		}
		for _, other := range may {
			if !slices.Contains(of, other) {
				broken = append(broken, name+" does not import "+other)
			}
		}
	}
	for other, may := range importers {
		for name, of := range imports {
			if slices.ContainsFunc(of, within(other)) && !slices.ContainsFunc(slices.Concat(may, testCode), contains(name)) {
				broken = append(broken, name+" imports "+other)
			}
		}
	}
	for name, never := range unreachable {
		for _, other := range reachable(imports, name) {
			if slices.ContainsFunc(never, contains(other)) {
				broken = append(broken, name+" reaches "+other)
			}
		}
	}
	slices.Sort(broken)
	for _, b := range slices.Compact(broken) {
		t.Error(b)
	}
	for name := range allowed {
		if _, exists := imports[name]; !exists {
			t.Errorf("there is no package %s", name)
		}
	}
}

// within returns a function that reports whether a path is root or below it. contains does the
// reverse.
func within(root string) func(string) bool {
	return func(name string) bool { return name == root || strings.HasPrefix(name, root+"/") }
}

func contains(name string) func(string) bool {
	return func(root string) bool { return within(root)(name) }
}

// read returns the imports of each package of this module, without its tests. It names packages
// of this module by their path in the module.
func read(t *testing.T) map[string][]string {
	imports := map[string][]string{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "build" || isModule(file)):
			return filepath.SkipDir
		case d.IsDir(), !strings.HasSuffix(file, ".go"), strings.HasSuffix(file, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		name := path.Dir(filepath.ToSlash(file))
		for _, spec := range f.Imports {
			other, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports[name] = append(imports[name], strings.TrimPrefix(other, module+"/"))
		}
		if _, known := imports[name]; !known {
			imports[name] = nil
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return imports
}

// isModule reports whether a directory is another module.
func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// reachable returns a package and all that it imports, directly or through packages of this
// module.
func reachable(imports map[string][]string, name string) []string {
	found := []string{name}
	for i := 0; i < len(found); i++ {
		for _, other := range imports[found[i]] {
			if !slices.Contains(found, other) {
				found = append(found, other)
			}
		}
	}
	return found
}
