package packettest

import (
	"encoding/hex"
	"strings"
)

// Hex returns the bytes that text has in hexadecimal. It ignores space, and everything
// after a # in a line. It panics on anything else.
func Hex(text string) []byte {
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		panic("packettest: " + err.Error())
	}
	return b
}
