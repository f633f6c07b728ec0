package doctest

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// root is the root of the repository, relative to this package.
const root = "../.."

// files returns the paths, relative to the root, of all files except build output, test data, and
// .git.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
			all = append(all, name)
		case slices.Contains([]string{".git", "bin", "build", "dist", "testdata"}, d.Name()):
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// contents returns the content of a file, given its path relative to the root.
func contents(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// document is a Markdown file.
type document struct {
	name   string // path relative to the root
	source []byte
	tree   ast.Node
}

// documents returns all Markdown files.
func documents(t *testing.T) []*document {
	t.Helper()
	var all []*document
	for _, name := range files(t) {
		if path.Ext(name) == ".md" {
			all = append(all, parse(name, contents(t, name)))
		}
	}
	if len(all) < 10 {
		t.Fatalf("only %d documents found", len(all))
	}
	return all
}

// parse parses the source of a document.
func parse(name string, source []byte) *document {
	markdown := goldmark.New(goldmark.WithExtensions(extension.GFM))
	return &document{name: name, source: source, tree: markdown.Parser().Parse(text.NewReader(source))}
}

// each calls f with every node of type T, and with the number of the line where the node begins.
func each[T ast.Node](d *document, f func(node T, line int)) {
	line := 1
	_ = ast.Walk(d.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		if at, known := begin(n); known {
			line = 1 + bytes.Count(d.source[:at], []byte("\n"))
		}
		if node, is := n.(T); is {
			f(node, line)
		}
		return ast.WalkContinue, nil
	})
}

// begin returns the offset of a node in the source, or false if the parser does not store it.
func begin(n ast.Node) (int, bool) {
	switch n := n.(type) {
	case *ast.Text:
		return n.Segment.Start, true
	case *ast.CodeSpan:
		if first, is := n.FirstChild().(*ast.Text); is {
			return first.Segment.Start, true
		}
	}
	if n.Type() == ast.TypeBlock && n.Lines().Len() > 0 {
		return n.Lines().At(0).Start, true
	}
	return 0, false
}

// written returns the text of a node and its descendants, including code spans.
func (d *document) written(n ast.Node) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if leaf, is := n.(*ast.Text); is && entering {
			b.Write(leaf.Segment.Value(d.source))
			if leaf.SoftLineBreak() || leaf.HardLineBreak() {
				b.WriteByte(' ')
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// block returns the lines of a code block.
func (d *document) block(n ast.Node) string {
	return string(n.Lines().Value(d.source))
}
