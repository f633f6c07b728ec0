package rules

import (
	"fmt"
	"reflect"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Config is a valid configuration.
type Config struct {
	File            string   // the file that it was read from
	Files           []string // the files that its sets were read from
	Inside, Outside Interface
	Fragments       Fragments
	Policy          *filter.Policy
	Log             Log
	Status          Status
	OnExit          Exit
	OnLinkDown      LinkDown
	FastPath        FastPath
	Notes           []Note // by line; remarks on a valid file

	sets map[string]uint64 // digests of the sets, by name
}

// Summary describes the configuration in a few words.
func (c *Config) Summary() string {
	noun := "rules"
	if len(c.Policy.Rules) == 1 {
		noun = "rule"
	}
	return fmt.Sprintf("%d %s, fragments %s, default %s", len(c.Policy.Rules), noun, c.Fragments.Mode, c.Policy.Default)
}

// Side returns the configuration of a side.
func (c *Config) Side(side verdict.Side) Interface {
	if side == verdict.Inside {
		return c.Inside
	}
	return c.Outside
}

// Fixed returns the keys in which two configurations differ and that cannot change at run
// time: those of the devices, of the fragment table, and of what is opened at the start.
func (c *Config) Fixed(next *Config) []string {
	keys := differing("inside", c.Inside, next.Inside)
	keys = append(keys, differing("outside", c.Outside, next.Outside)...)
	keys = append(keys, differing("fragments", c.Fragments, next.Fragments)...)
	keys = append(keys, differing("status", c.Status, next.Status)...)
	if c.Log.Format != next.Log.Format {
		keys = append(keys, "log.format")
	}
	if c.OnExit != next.OnExit {
		keys = append(keys, "on_exit")
	}
	if c.OnLinkDown != next.OnLinkDown {
		keys = append(keys, "on_link_down")
	}
	if c.FastPath != next.FastPath {
		keys = append(keys, "fast_path")
	}
	return keys
}

// differing returns the keys, by the tags of the fields, in which two tables of one kind
// differ.
func differing(name string, a, b any) (keys []string) {
	before, after := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range before.NumField() {
		if !before.Field(i).Equal(after.Field(i)) {
			keys = append(keys, name+"."+before.Type().Field(i).Tag.Get("key"))
		}
	}
	return keys
}

// Interface is the configuration of one side: its devices. No two devices of a
// configuration have the same name.
type Interface struct {
	TAP     string `key:"tap"`
	NIC     string `key:"nic"`     // joined to the TAP; "" if there is none
	Join    Join   `key:"join"`    // how it is joined
	Bridge  string `key:"bridge"`  // the bridge that joins them; "" with [JoinRedirect] or without a NIC
	MTU     int    `key:"mtu"`     // of the TAP and the NIC, in bytes, without the Ethernet header; 0: the NIC's own
	Queues  int    `key:"queues"`  // of the TAP; 0: one per CPU
	Offload bool   `key:"offload"` // whether the TAP's frames carry virtio-net headers
}

// Join is the way to join a NIC to its TAP.
type Join uint8

// The ways to join.
const (
	JoinRedirect Join = iota // by traffic control (tc)
	JoinBridge               // by a bridge
)

// Fragments is the configuration of fragments. The limits are for both directions
// together.
type Fragments struct {
	Mode packet.Mode `key:"mode"`
	Emit packet.Emit `key:"emit"` // in mode reassemble
	// TimeoutIPv4 and TimeoutIPv6 are the deadlines of a datagram, counted from its first
	// fragment.
	TimeoutIPv4  time.Duration `key:"timeout_ipv4"`
	TimeoutIPv6  time.Duration `key:"timeout_ipv6"`
	Memory       int64         `key:"memory"`        // in bytes
	MaxFragments int           `key:"max_fragments"` // per datagram
	MaxDatagrams int           `key:"max_datagrams"` // incomplete ones
}

// Note is a remark on a valid configuration.
type Note struct {
	File string
	Line int
	Text string
}

// String returns the note on one line, after its place.
func (n Note) String() string { return fmt.Sprintf("%s:%d: note: %s", n.File, n.Line, n.Text) }
