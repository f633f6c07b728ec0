package rules

import (
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// contract is every key of the configuration, by table. In [sets], which has none here,
// users choose the names.
var contract = map[string][]string{
	"inside":  {"tap", "nic", "join", "bridge", "mtu", "queues", "offload"},
	"outside": {"tap", "nic", "join", "bridge", "mtu", "queues", "offload"},
	"fragments": {
		"mode", "emit", "timeout_ipv4", "timeout_ipv6", "memory", "max_fragments", "max_datagrams",
	},
	"policy": {"default", "stateful", "tcp", "flow_vlans", "source_route", "arp", "neighbor_discovery", "non_ip"},
	"sets":   nil,
	"rule": {
		"name", "action", "from", "protocol", "src", "dst", "src_port", "dst_port",
		"icmp_type", "icmp_code", "vlan", "fragmented", "log", "limit",
	},
	"log":    {"format", "level", "drops"},
	"status": {"listen", "token_file"},
}

// top is every key outside tables.
var top = []string{"on_exit", "on_link_down", "fast_path"}

// checkNames reports every key of the file that the configuration does not have.
func checkNames(root table) {
	for name, value := range inOrder(root.values) {
		keys, known := contract[name]
		switch {
		case slices.Contains(top, name):
		case !known:
			root.unknown(toml.Key{name}, value, root.place.key(name))
		case name == "rule": // readRules looks at each
		case name != "sets":
			for _, t := range root.tables(name) {
				t.checkKeys(name, keys)
			}
		}
	}
}

// checkKeys reports the keys of a table that are not in keys.
func (t table) checkKeys(name string, keys []string) {
	var unknown []string
	for key := range t.values {
		if !slices.Contains(keys, key) {
			unknown = append(unknown, key)
		}
	}
	slices.Sort(unknown) // so that messages about one line always come in the same order
	for _, key := range unknown {
		t.unknown(toml.Key{name, key}, t.values[key], t.place.key(key))
	}
}

// unknown reports an unknown key. For a table it reports each of its keys, because each
// is a line to correct.
func (t table) unknown(key toml.Key, value any, at *place) {
	if inner, ok := value.(map[string]any); ok && len(inner) > 0 {
		for name, value := range inOrder(inner) {
			t.unknown(append(slices.Clip(key), name), value, at.key(name))
		}
		return
	}
	if headers, ok := value.([]map[string]any); ok {
		for i := range headers {
			t.report.mistake(at.item(i).line, "unknown table %s%s", quote(key.String()), didYouMean(key))
		}
		return
	}
	t.report.mistake(at.line, "unknown key %s%s", quote(key.String()), didYouMean(key))
}

// didYouMean suggests a replacement for an unknown key.
func didYouMean(key toml.Key) lazy {
	return func() string {
		if leaf := key[len(key)-1]; len(key) > 1 && slices.Contains(top, leaf) {
			return "; move it above the first table"
		}
		if s := suggest(key); s != "" {
			return "; did you mean " + quote(s) + "?"
		}
		return "; remove it"
	}
}

// checkOnly reports the keys of the table that are not in keys, each with a suggestion.
func (t table) checkOnly(keys []string) {
	for key := range inOrder(t.values) {
		if slices.Contains(keys, key) {
			continue
		}
		correction := lazy(func() string {
			best := synonyms[key]
			if !slices.Contains(keys, best) {
				best = nearest(key, keys)
			}
			if best == "" {
				return "remove it"
			}
			return "did you mean " + quote(best) + "?"
		})
		t.report.mistake(t.place.key(key).line, "unknown key %s; %s", quote(key), correction)
	}
}

// synonyms are names of keys of rules and expectations in nftables, in iptables, among
// the flags of explain, and in the other table.
var synonyms = map[string]string{
	"port": "dst_port", "dport": "dst_port", "sport": "src_port", "proto": "protocol",
	"saddr": "src", "daddr": "dst", "source": "src", "destination": "dst",
	"type": "icmp_type", "code": "icmp_code", "action": "verdict", "verdict": "action",
}

// suggest returns the key of the contract that is most similar to an unknown one, or "".
func suggest(key toml.Key) string {
	tables := slices.Sorted(maps.Keys(contract))
	first := key[0]
	if best := nearest(first, append(top, tables...)); len(key) == 1 && slices.Contains(top, best) {
		return best
	}
	if _, known := contract[first]; !known {
		first = nearest(first, tables)
	}
	if len(key) == 1 && first != "" {
		return first
	}
	leaf := key[len(key)-1]
	if first == "rule" && synonyms[leaf] != "" {
		return first + "." + synonyms[leaf]
	}
	if best := nearest(leaf, contract[first]); best != "" {
		return first + "." + best
	}
	for _, name := range tables {
		if slices.Contains(contract[name], leaf) {
			return name + "." + leaf
		}
	}
	return ""
}

// inOrder returns the entries of a table by name, so that messages about one line always
// come in the same order.
func inOrder(values map[string]any) func(yield func(string, any) bool) {
	return func(yield func(string, any) bool) {
		for _, name := range slices.SortedFunc(maps.Keys(values), strings.Compare) {
			if !yield(name, values[name]) {
				return
			}
		}
	}
}
