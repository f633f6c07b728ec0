package rules

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fragwall/filter"
)

const changing = `
[inside]
tap = "a"
[outside]
tap = "b"
[sets]
some = ["10.0.0.1"]
other = ["10.0.0.2"]
[policy]
default = "drop"
[log]
level = "info"
[[rule]]
name = "first"
action = "accept"
src = "@some"
[[rule]]
name = "second"
action = "drop"
[[rule]]
name = "third"
action = "accept"
`

// TestChanges changes each part of a configuration.
func TestChanges(t *testing.T) {
	many := changing
	for i := range 12 {
		many += fmt.Sprintf("[[rule]]\nname = \"new %d\"\naction = \"drop\"\n", i)
	}
	for name, tt := range map[string]struct{ next, want string }{
		"nothing":      {changing, "nothing changed"},
		"comments":     {"# text\n\n" + changing, "nothing changed"},
		"a rule more":  {changing + "[[rule]]\nname = \"new\"\naction = \"drop\"\n", `rules added: "new"`},
		"many more":    {many, `rules added: "new 0", "new 1", "new 2", "new 3", "new 4", "new 5", "new 6", "new 7", "new 8", "new 9" and 2 more`},
		"a rule less":  {strings.Replace(changing, "[[rule]]\nname = \"second\"\naction = \"drop\"\n", "", 1), `rules removed: "second"`},
		"an action":    {strings.Replace(changing, "third\"\naction = \"accept\"", "third\"\naction = \"reject\"", 1), `rules changed: "third"`},
		"another name": {strings.Replace(changing, `"third"`, `"last"`, 1), `rules added: "last"; rules removed: "third"`},
		"a set in use": {strings.Replace(changing, "10.0.0.1", "10.0.0.3", 1), `rules changed: "first"; sets changed: "some"`},
		"another set":  {strings.Replace(changing, "10.0.0.2", "10.0.0.3", 1), `sets changed: "other"`},
		"a set's name": {strings.Replace(changing, "other =", "another =", 1), `sets changed: "another", "other"`},
		"keys":         {strings.NewReplacer("default = \"drop\"", "default = \"accept\"\nstateful = true\ntcp = \"loose\"", `"info"`, "\"warn\"\ndrops = \"off\"").Replace(changing), "keys changed: policy.default, policy.non_ip, policy.stateful, policy.tcp, log.level, log.drops"},
	} {
		t.Run(name, func(t *testing.T) {
			before, err := Parse("x.toml", []byte(changing))
			if err != nil {
				t.Fatal(err)
			}
			after, err := Parse("x.toml", []byte(tt.next))
			if err != nil {
				t.Fatal(err)
			}
			if got := before.Changes(after).String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestRulesMoved has the same rules in another order.
func TestRulesMoved(t *testing.T) {
	before := []filter.Rule{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	after := []filter.Rule{{Name: "c"}, {Name: "a"}, {Name: "b"}}
	if got := changedRules(before, after).String(); got != "order of rules: changed" {
		t.Errorf("%q", got)
	}
}

// TestPolicyKeys checks that each field of a policy has the key that sets it.
func TestPolicyKeys(t *testing.T) {
	for i := range reflect.TypeFor[filter.Policy]().NumField() {
		name := reflect.TypeFor[filter.Policy]().Field(i).Name
		if policyKeys[name] == "" && name != "Rules" && name != "Secret" {
			t.Errorf("the key of %s is missing", name)
		}
	}
	got, want := slices.Sorted(maps.Values(policyKeys)), slices.Sorted(slices.Values(contract["policy"]))
	if !slices.Equal(got, want) {
		t.Errorf("keys %q, want %q", got, want)
	}
}
