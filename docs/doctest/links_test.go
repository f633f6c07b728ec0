package doctest

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark/ast"
)

// TestLinks checks that the target of every link in the documents exists: a file of the repository
// and, in Markdown, a heading. It does not fetch external targets.
func TestLinks(t *testing.T) {
	all := documents(t)
	anchors := map[string]map[string]bool{}
	for _, d := range all {
		anchors[d.name] = d.anchors()
	}
	for _, d := range all {
		d.links(func(target string, line int) {
			if err := follow(anchors, d.name, target); err != nil {
				t.Errorf("%s:%d: link %q: %v", d.name, line, target, err)
			}
		})
	}
}

// mention matches the path of a document in a comment or message.
var mention = regexp.MustCompile(`\bdocs/[\w-]+\.md(?:#[\w-]+)?`)

// TestMentions checks that every document exists whose path another file contains.
func TestMentions(t *testing.T) {
	anchors := map[string]map[string]bool{}
	for _, d := range documents(t) {
		anchors[d.name] = d.anchors()
	}
	found := 0
	for _, name := range files(t) {
		if path.Ext(name) == ".md" || path.Dir(name) == "docs/doctest" {
			continue
		}
		for _, m := range mention.FindAllString(string(contents(t, name)), -1) {
			found++
			if err := follow(anchors, "README.md", m); err != nil {
				t.Errorf("%s: %s: %v", name, m, err)
			}
		}
	}
	if found == 0 {
		t.Error("no file mentions a document")
	}
}

// follow returns an error if the target of a link in the document from does not exist.
func follow(anchors map[string]map[string]bool, from, target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	switch {
	case u.Scheme == "https" && u.Host != "":
		return nil
	case u.Scheme != "":
		return fmt.Errorf("the scheme %s is not allowed: use https", u.Scheme)
	}
	file := from
	if path.IsAbs(u.Path) {
		return fmt.Errorf("the path is not relative")
	}
	if u.Path != "" {
		file = path.Join(path.Dir(from), u.Path)
	}
	if _, err := os.Stat(filepath.Join(root, file)); err != nil || !filepath.IsLocal(file) {
		return fmt.Errorf("there is no file %s", file)
	}
	if u.Fragment != "" && !anchors[file][u.Fragment] {
		return fmt.Errorf("%s has no heading #%s", file, u.Fragment)
	}
	return nil
}

// links calls f with the target of every link and image.
func (d *document) links(f func(target string, line int)) {
	each(d, func(l *ast.Link, line int) { f(string(l.Destination), line) })
	each(d, func(i *ast.Image, line int) { f(string(i.Destination), line) })
	each(d, func(h *ast.HTMLBlock, line int) {
		attributes(d.block(h), "href|src|srcset", func(v string) { f(v, line) })
	})
	each(d, func(h *ast.RawHTML, line int) {
		attributes(string(h.Segments.Value(d.source)), "href|src|srcset", func(v string) { f(v, line) })
	})
}

// attributes calls f with the values of HTML attributes. names is a regular expression.
func attributes(html, names string, f func(value string)) {
	for _, m := range regexp.MustCompile(`\s(?:`+names+`)="([^"]*)"`).FindAllStringSubmatch(html, -1) {
		f(m[1])
	}
}

// anchors returns the valid fragments of links to the document: one per heading, made as GitHub
// makes it, and the attributes id and name in HTML.
func (d *document) anchors() map[string]bool {
	all := map[string]bool{}
	each(d, func(h *ast.Heading, _ int) {
		name := slug(d.written(h))
		unique := name
		for i := 1; all[unique]; i++ {
			unique = fmt.Sprintf("%s-%d", name, i)
		}
		all[unique] = true
	})
	each(d, func(h *ast.HTMLBlock, _ int) { attributes(d.block(h), "id|name", func(v string) { all[v] = true }) })
	each(d, func(h *ast.RawHTML, _ int) {
		attributes(string(h.Segments.Value(d.source)), "id|name", func(v string) { all[v] = true })
	})
	return all
}

// slug returns the fragment of a heading. It converts letters to lower case, keeps digits,
// underscores and hyphens, replaces a space by a hyphen, and removes other characters.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '_', r == '-':
			return unicode.ToLower(r)
		case r == ' ':
			return '-'
		}
		return -1
	}, heading)
}

func TestSlug(t *testing.T) {
	d := parse("x.md", []byte("# The `fast_path` key: when, why?\n\n## Two  words\n\n## Again\n\n## Again\n\n<a id=\"here\"></a>\n"))
	got := d.anchors()
	for _, want := range []string{"the-fast_path-key-when-why", "two--words", "again", "again-1", "here"} {
		if !got[want] {
			t.Errorf("anchor %s is missing in %v", want, got)
		}
	}
	if len(got) != 5 {
		t.Errorf("got %d anchors, want 5: %v", len(got), got)
	}
}

// TestFollow follows links whose targets exist or do not exist.
func TestFollow(t *testing.T) {
	anchors := map[string]map[string]bool{"docs/rules.md": {"order": true}}
	for target, good := range map[string]bool{
		"docs/rules.md": true, "docs/rules.md#order": true, "docs/rules.md#nothing": false, "docs/nothing.md": false, "#order": false,
		"https://gvisor.dev": true, "http://gvisor.dev": false, "../x": false, "docs": true, "/docs": false,
	} {
		if err := follow(anchors, "README.md", target); (err == nil) != good {
			t.Errorf("%s: %v", target, err)
		}
	}
}
