package gvisor

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFragmentationIsAsDeclared compares the declarations of fragmentation.go with gVisor's
// source, in the version of go.mod.
func TestFragmentationIsAsDeclared(t *testing.T) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "gvisor.dev/gvisor/pkg/tcpip/network/internal/fragmentation").Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := declarations(t, filepath.Join(strings.TrimSpace(string(dir)), "fragmentation.go"))
	ours := declarations(t, "fragmentation.go")
	for name, of := range map[string]string{
		"fragmentID": "FragmentID", "timeoutHandler": "TimeoutHandler",
		"newFragmentation": "NewFragmentation",
		"process":          "*Fragmentation.Process", "release": "*Fragmentation.Release",
	} {
		if ours[name] == "" || ours[name] != theirs[of] {
			t.Errorf("%s is declared as\n%s\nand in gVisor as\n%s", of, ours[name], theirs[of])
		}
	}
}

// declarations returns the types and functions of a file by name. Methods have the type of
// their receiver before their name, and it counts as a parameter. The names of parameters are
// left out, and types are in lower case.
func declarations(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				name = types.ExprString(d.Recv.List[0].Type) + "." + name
			}
			all[name] = "func(" + strings.Join(append(typesOf(d.Recv), typesOf(d.Type.Params)...), ", ") +
				") (" + strings.Join(typesOf(d.Type.Results), ", ") + ")"
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if s, ok := spec.(*ast.TypeSpec); ok {
					all[s.Name.Name] = strings.ToLower(types.ExprString(s.Type))
				}
			}
		}
	}
	return all
}

// typesOf returns the type of each parameter or result.
func typesOf(list *ast.FieldList) (all []string) {
	if list == nil {
		return nil
	}
	for _, f := range list.List {
		for range max(1, len(f.Names)) {
			all = append(all, strings.ToLower(types.ExprString(f.Type)))
		}
	}
	return all
}
