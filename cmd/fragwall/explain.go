package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/explain"
	"fragwall/cmd/fragwall/internal/inspect"
	"fragwall/packet"
	"fragwall/rules"
)

func newExplainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain (-c FILE | --live) --from inside --proto udp --src A --dst B",
		Short: "Say which rule decides on a datagram, and why",
		Long: `Say which rule decides on a datagram, its line in the file, and the action; also
which earlier rules match in all fields but one. The answer is that of an instance
without state: limits are not reached, and no flow is known.

--live asks the running instance instead of a file. The answer includes its policy
in force, the flow of the datagram, the remaining limits, and the fast path entry.
It changes nothing and uses up no limit. It does not include flows of ICMP queries,
because the flags do not give the identifier. If several instances run, choose one
with -c or --socket.`,
		Args: usageArgs(noArguments),
	}
	var client inspect.Client
	instanceFlags(c, &client.Instance)
	c.Flags().Lookup("config").Usage = "configuration `file`; with --live, the one that the instance runs with"
	live := c.Flags().Bool("live", false, "ask the running instance")
	asJSON := c.Flags().Bool("json", false, "print the answer as one JSON object")
	flags := addQuestionFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case !*live && client.Socket != "":
			return exit.Usagef("--socket needs --live; add --live")
		case !*live && client.File == "":
			return exit.Usagef("no configuration file given; add -c FILE, or --live to ask the running instance")
		}
		question, d, err := datagramOf(flags)
		if err != nil {
			return exit.Usagef("%w; see %q", err, c.CommandPath()+" --help")
		}
		if *live {
			return explainLive(c, client, question, *asJSON)
		}
		config, err := loadConfig(c, client.File)
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

// explainLive prints the answer of a running instance.
func explainLive(c *cobra.Command, client inspect.Client, question rules.Question, asJSON bool) error {
	answer, err := client.Explain(c.Context(), question)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(answer)
	}
	return answer.Write(c.OutOrStdout())
}

// datagramOf returns the question that the flags ask, and its datagram.
func datagramOf(flags func() (rules.Question, error)) (rules.Question, *packet.View, error) {
	question, err := flags()
	if err != nil {
		return nil, nil, err
	}
	d, err := question.Datagram(questionFlagNames())
	return question, d, err
}

// questionFlag is a flag for one field of the datagram. key is the field's key in a
// [rules.Question].
type questionFlag struct{ flag, key, usage string }

// questionTexts are the flags with a text value. The first four are required.
var questionTexts = []questionFlag{
	{"from", "from", "side that the datagram arrives on: `inside|outside` (required)"},
	{"proto", "protocol", "protocol, a `name or number` (required)"},
	{"src", "src", "source `address` (required)"},
	{"dst", "dst", "destination `address` (required)"},
	{"sport", "src_port", "source `port`, for protocols with ports"},
	{"dport", "dst_port", "destination `port`, for protocols with ports"},
	{"icmp-type", "icmp_type", "ICMP type, a `name or number`"},
	{"icmp-code", "icmp_code", "ICMP code, a `number`"},
	{"vlan", "vlan", "VLAN, a `number` or \"none\""},
}

var questionBooleans = []questionFlag{
	{"fragmented", "fragmented", "the datagram arrives in fragments"},
	{"source-route", "source_route", "the datagram has an IPv4 source route, or an IPv6 routing header with segments left"},
}

// addQuestionFlags adds the flags that describe a datagram. It returns a function that returns
// the question once the flags are parsed.
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

// questionFlagNames returns the names that messages use for the question's keys: the flags.
func questionFlagNames() map[string]string {
	names := map[string]string{}
	for _, f := range slices.Concat(questionTexts, questionBooleans) {
		names[f.key] = "--" + f.flag
	}
	return names
}
