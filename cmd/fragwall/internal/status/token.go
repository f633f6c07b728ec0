package status

import (
	"fmt"
	"strings"
	"time"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/rules"
)

const (
	minToken     = 16   // minimum length in bytes, so that it cannot be guessed
	maxToken     = 4096 // maximum size of the file in bytes
	tokenTimeout = 10 * time.Second
)

// Token reads the token that a configuration names. path is the file of the configuration.
func Token(path string, config *rules.Config, read rules.Reader) (string, error) {
	token, err := ReadToken(config.Status.TokenFile, read)
	if err != nil {
		return "", exit.Usagef("%s: status.token_file: %w", path, err)
	}
	return token, nil
}

// ReadToken reads the token that clients of the status server need, or returns "" if path is
// "".
func ReadToken(path string, read rules.Reader) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := read(path, maxToken, tokenTimeout)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(text)
	if len(token) < minToken {
		return "", fmt.Errorf("%q has %s; want a token of at least %d", path, terminal.Count(len(token), "byte"), minToken)
	}
	return token, nil
}
