package rules

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// read returns the values of a text, or the mistake at which the decoder stopped. line is
// the number of the first line.
func read(text string, line int) (map[string]any, *Mistake) {
	values, err := decode(text)
	var syntax toml.ParseError
	switch {
	case errors.As(err, &syntax):
		lines := strings.Count(strings.TrimSuffix(text, "\n"), "\n") + 1
		return nil, &Mistake{Line: line - 1 + min(max(1, syntax.Position.Line), lines), Text: explain(syntax.Message)}
	case err != nil:
		return nil, &Mistake{Line: line, Text: explain(err.Error())}
	case !utf8.ValidString(text): // the decoder skips a mark at the beginning
		return nil, &Mistake{Line: 1, Text: "not valid TOML: a byte order mark of UTF-16; save the file as UTF-8"}
	}
	return values, nil
}

// errMalformed is the error for a text at which the decoder panicked, as it does for some
// that are not TOML.
var errMalformed = errors.New("malformed; check the latest change")

// decode decodes a text.
func decode(text string) (values map[string]any, err error) {
	defer func() {
		if recover() != nil {
			values, err = nil, errMalformed
		}
	}()
	_, err = toml.Decode(text, &values)
	return values, err
}

var (
	definedTwice = regexp.MustCompile(`^Key '(.*)' (?:has already been defined|was already created as a hash)\.$`)
	tableAsArray = regexp.MustCompile(`^Key '(.*)' was already created and cannot be used as an array\.$`)
)

// explain turns a message of the decoder into one line in lower case, with a correction
// if one is known.
func explain(message string) string {
	if m := definedTwice.FindStringSubmatch(message); m != nil {
		if lists[m[1]] != "" {
			return fmt.Sprintf("%q appears twice; %s", m[1], begin(m[1]))
		}
		return fmt.Sprintf("%s appears twice; remove one", quote(m[1]))
	}
	if m := tableAsArray.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("%s is both one table and a list of tables; write [[%s]] everywhere", quote(m[1]), m[1])
	}
	message = strings.TrimSuffix(message, ".")
	if first, rest, _ := strings.Cut(message, " "); first != "TOML" {
		message = strings.TrimSpace(strings.ToLower(first) + " " + rest)
	}
	return "not valid TOML: " + strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, message)
}
