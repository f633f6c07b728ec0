package status

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"strings"
)

// The parts of the status page. Its elements style and script are empty in
// page.html.
//
//go:embed page
var parts embed.FS

// meanings maps each reason to its meaning and a suggested action, as JSON. The texts are those
// of docs/operations.md. A test compares them, and rewrites them with -update.
//
//go:embed meanings.json
var meanings string

var (
	style  = part("page.css")
	script = "\n\"use strict\";\nconst meanings = " + strings.TrimSpace(meanings) + ";\n" +
		part("format.js") + part("meanings.js") + part("charts.js") + part("lists.js") + part("page.js")
	// page is the complete status page. It loads nothing from other servers.
	page = strings.NewReplacer("<style></style>", "<style>"+style+"</style>", "<script></script>", "<script>"+script+"</script>").Replace(part("page.html"))
)

// part returns the text of one part of the page.
func part(name string) string {
	text, err := parts.ReadFile("page/" + name)
	if err != nil {
		panic(err) // not embedded in the program
	}
	return string(text)
}

// pagePolicy allows only the page's own script and style, identified by their hashes, and
// requests to this server (Content Security Policy Level 3, section 2.3.1).
var pagePolicy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
	"; style-src " + hashOf(style) + "; script-src " + hashOf(script)

// hashOf returns the hash of an element's text.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	_, _ = w.Write([]byte(page))
}
