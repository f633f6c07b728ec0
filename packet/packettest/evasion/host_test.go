package evasion

import (
	"strings"
	"testing"
)

// TestOverlapModels reassembles the six fragments by each model. The expected results are those
// in Novak's paper.
func TestOverlapModels(t *testing.T) {
	want := map[string]string{
		"first":     "11422333666",
		"last":      "44442555666",
		"BSD":       "11442333666",
		"BSD-right": "44422555666",
		"Linux":     "11442555666",
	}
	for f := range Family(Families) {
		s := script{Family: f}
		s.send(six(&s)...)
		for _, h := range Hosts() {
			got := h.Receive(s.frames)
			if len(got) != 1 {
				t.Fatalf("%s: %d datagrams", h.Name, len(got))
			}
			payload := got[0].Frame[len(got[0].Frame)-11*8:]
			var blocks strings.Builder
			for i := 0; i < len(payload); i += 8 {
				blocks.WriteByte(payload[i])
			}
			if blocks.String() != want[h.Name] {
				t.Errorf("%v, %s: %s, want %s", f, h.Name, blocks.String(), want[h.Name])
			}
		}
	}
}
