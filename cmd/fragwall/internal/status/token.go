package status

import (
	"fmt"
	"strings"
	"time"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/rules"
)

const (
	minToken     = 16   // bytes of a token: what nobody guesses
	maxToken     = 4096 // bytes of its file
	tokenTimeout = 10 * time.Second
)

// Token reads the token that a configuration names, whose file is at path.
func Token(path string, config *rules.Config, read rules.Reader) (string, error) {
	token, err := ReadToken(config.Status.TokenFile, read)
	if err != nil {
		return "", exit.Usagef("%s: status.token_file: %w", path, err)
	}
	return token, nil
}

// ReadToken reads the token that clients of the status server have to show; ""
// where there is no file.
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
		return "", fmt.Errorf("%q has %d bytes; want a token of at least %d", path, len(token), minToken)
	}
	return token, nil
}
