package handover

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMessageSurvivesText(t *testing.T) {
	for name, m := range map[string]message{
		"address": parse(t, unix.RTM_NEWADDR, slaac),
		"route":   parse(t, unix.RTM_NEWROUTE, learntDefault),
	} {
		text, err := m.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back message
		if err := back.UnmarshalText(text); err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("%s: %v\n%+v\n%+v", name, err, m, back)
		}
	}
}

func TestMalformedText(t *testing.T) {
	for _, text := range []string{"", "AA==", "!", "FAAC", "EAAA"} {
		if err := new(message).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted as a message", text)
		}
	}
}

// FuzzMessage parses arbitrary bytes as a message of any kind.
func FuzzMessage(f *testing.F) {
	for kind, text := range map[uint16]string{unix.RTM_NEWADDR: slaac, unix.RTM_NEWROUTE: shared} {
		f.Add(kind, parse(f, kind, text).body())
	}
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		m, err := parseMessage(kind, body)
		if err != nil {
			return
		}
		again, err := parseMessage(kind, m.body())
		if err != nil || again.key() != m.key() {
			t.Fatalf("%v\n%+v\n%+v", err, m, again)
		}
		switch kind {
		case unix.RTM_NEWADDR:
			later, _ := addressFor(m, 7, 1)
			_ = addressWords(later)
		case unix.RTM_NEWROUTE:
			if _, err := usesDevice(m, 2); err == nil {
				later, _ := routeFor(m, 2, 7, 1)
				_ = routeWords(later, func(int) string { return "eth0" })
				if isAdvertised(later) {
					_ = advertisement(later, nil)
				}
			}
		case unix.RTM_NEWNEIGH:
			_ = neighborWords(neighborFor(m, 7))
		}
	})
}
