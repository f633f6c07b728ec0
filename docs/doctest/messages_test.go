package doctest

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark/ast"
	extension "github.com/yuin/goldmark/extension/ast"
)

// foreignMessages are parts of messages that other programs print.
var foreignMessages = []string{"no params found for policy binding"}

// varying matches the parts of a message that vary: an ellipsis, or a placeholder in capitals.
var varying = regexp.MustCompile(`…|\b[A-Z]+\b`)

// logMessage matches the message of a log line.
var logMessage = regexp.MustCompile(`\bmsg=(?:"([^"]+)"|(\S+))`)

// TestMessages checks that the program or the manifests contain the messages in the documents: those
// in log lines, and those in tables whose first heading begins with "message".
func TestMessages(t *testing.T) {
	var sources strings.Builder
	for _, name := range files(t) {
		if slices.Contains([]string{".go", ".yaml", ".tpl"}, path.Ext(name)) && !strings.HasSuffix(name, "_test.go") {
			sources.Write(contents(t, name))
		}
	}
	printed := strings.ReplaceAll(sources.String(), `\"`, `"`)
	messages := 0
	for _, d := range documents(t) {
		for _, message := range append(d.explained(), d.logged()...) {
			messages++
			for _, part := range varying.Split(message, -1) {
				if part = strings.TrimSpace(part); !strings.Contains(printed, part) && !slices.Contains(foreignMessages, part) {
					t.Errorf("%s: nothing prints %q of the message %q", d.name, part, message)
				}
			}
		}
	}
	if messages < 20 {
		t.Errorf("only %d messages found", messages)
	}
}

// explained returns the messages in the first column of tables about messages.
func (d *document) explained() (messages []string) {
	each(d, func(table *extension.Table, _ int) {
		if !strings.HasPrefix(d.written(table.FirstChild().FirstChild()), "message") {
			return
		}
		for row := table.FirstChild().NextSibling(); row != nil; row = row.NextSibling() {
			for span := row.FirstChild().FirstChild(); span != nil; span = span.NextSibling() {
				if span.Kind() == ast.KindCodeSpan {
					messages = append(messages, d.written(span))
				}
			}
		}
	})
	return messages
}

// logged returns the messages of log lines.
func (d *document) logged() (messages []string) {
	for _, found := range logMessage.FindAllStringSubmatch(string(d.source), -1) {
		messages = append(messages, found[1]+found[2])
	}
	return messages
}
