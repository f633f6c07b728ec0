package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/explain"
	"fragwall/packet"
	"fragwall/rules"
)

func newExplainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain -c FILE --from inside --proto udp --src A --dst B",
		Short: "Say which rule decides on a datagram, and why",
		Long: `Say which rule decides on a datagram, its line in the file, and the action;
and which rules before it would have matched but for one field. The policy
is the one that run would use, and nothing of its state: limits count as not
reached, and no flow is known.`,
		Args: usageArgs(noArguments),
	}
	path := configFlag(c)
	asJSON := c.Flags().Bool("json", false, "print the answer as one JSON object")
	flags := addQuestionFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		d, err := datagramOf(flags)
		if err != nil {
			return exit.Usagef("%w; see %q", err, c.CommandPath()+" --help")
		}
		config, err := loadConfig(c, *path)
		if err != nil {
			return err
		}
		answer := explain.NewPolicy(config).Ask(d)
		if *asJSON {
			return json.NewEncoder(c.OutOrStdout()).Encode(answer)
		}
		return answer.Write(c.OutOrStdout())
	}
	return c
}

// datagramOf returns the datagram that flags describe.
func datagramOf(flags func() (rules.Question, error)) (*packet.View, error) {
	question, err := flags()
	if err != nil {
		return nil, err
	}
	return question.Datagram(questionFlagNames())
}

// questionFlag is a flag that says a field of the datagram, by its key.
type questionFlag struct{ flag, key, usage string }

// questionTexts are the flags with a text, the four that are required first.
var questionTexts = []questionFlag{
	{"from", "from", "side that it comes in by: `inside|outside` (required)"},
	{"proto", "protocol", "protocol, a `name or number` (required)"},
	{"src", "src", "source `address` (required)"},
	{"dst", "dst", "destination `address` (required)"},
	{"sport", "src_port", "source `port`, of a protocol with ports"},
	{"dport", "dst_port", "destination `port`, of a protocol with ports"},
	{"icmp-type", "icmp_type", "ICMP type, a `name or number`"},
	{"icmp-code", "icmp_code", "ICMP code, a `number`"},
	{"vlan", "vlan", "VLAN, a `number` or \"none\""},
}

var questionBooleans = []questionFlag{
	{"fragmented", "fragmented", "it came in fragments"},
	{"source-route", "source_route", "it has an IPv4 source route or an IPv6 routing header with segments left"},
}

// addQuestionFlags adds the flags that describe a datagram. What it returns returns
// the question that the user's flags make.
func addQuestionFlags(c *cobra.Command) func() (rules.Question, error) {
	flags, given := c.Flags(), rules.Question{}
	var texts []*string
	for _, f := range questionTexts {
		texts = append(texts, flags.String(f.flag, rules.QuestionDefaults[f.key], f.usage))
	}
	var booleans []*bool
	for _, f := range questionBooleans {
		booleans = append(booleans, flags.Bool(f.flag, false, f.usage))
	}
	return func() (rules.Question, error) {
		for i, f := range questionTexts {
			switch {
			case flags.Changed(f.flag):
				given[f.key] = *texts[i]
			case i < 4:
				return nil, fmt.Errorf("--%s is missing", f.flag)
			}
		}
		for i, f := range questionBooleans {
			given[f.key] = *booleans[i]
		}
		return given, nil
	}
}

// questionFlagNames are what messages call the keys of a question.
func questionFlagNames() map[string]string {
	names := map[string]string{}
	for _, f := range slices.Concat(questionTexts, questionBooleans) {
		names[f.key] = "--" + f.flag
	}
	return names
}
