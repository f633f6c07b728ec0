package golden

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

// Update is set to rewrite the golden files.
var Update = flag.Bool("update", false, "update the golden files")

// Compare compares a text with a file in testdata, or writes the file if Update is set.
func Compare(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", filepath.FromSlash(name))
	if *Update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (update it with go test -update); got\n%s", path, got)
	}
}
