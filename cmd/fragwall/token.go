package main

import (
	"fmt"
	"strings"
	"time"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/rules"
)

const (
	minToken      = 16   // bytes of a token: what nobody guesses
	maxToken      = 4096 // bytes of its file
	tokenPatience = 10 * time.Second
)

// statusToken reads the token that a configuration names, whose file is at path.
func statusToken(path string, config *rules.Config, read rules.Reader) (string, error) {
	token, err := readToken(config.Status.TokenFile, read)
	if err != nil {
		return "", exit.Usagef("%s: status.token_file: %w", path, err)
	}
	return token, nil
}

// readToken reads the token that clients of the status server have to show; ""
// where there is no file.
func readToken(path string, read rules.Reader) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := read(path, maxToken, tokenPatience)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(text)
	if len(token) < minToken {
		return "", fmt.Errorf("%q holds %d bytes; want a token of at least %d", path, len(token), minToken)
	}
	return token, nil
}
