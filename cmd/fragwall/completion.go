package main

import (
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/trace"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// completions returns, per flag name, the values that a shell offers. It applies to all
// commands that have the flag.
var completions = map[string]func(c *cobra.Command) []string{
	"from":      func(*cobra.Command) []string { return []string{verdict.Inside.String(), verdict.Outside.String()} },
	"proto":     func(*cobra.Command) []string { return rules.ProtocolNames() },
	"icmp-type": func(*cobra.Command) []string { return rules.ICMPTypeNames() },
	"vlan":      func(*cobra.Command) []string { return []string{"none"} },
	"nic":       func(*cobra.Command) []string { return interfaces() },
	"reason":    func(*cobra.Command) []string { return trace.ReasonNames() },
	"rule":      ruleNames,
	"sort":      func(*cobra.Command) []string { return orders() },
	"host":      none, "src": none, "dst": none, "port": none, "sport": none, "dport": none,
}

// none offers no values and no file names.
func none(*cobra.Command) []string { return nil }

// addCompletions registers the completions for the flags of a command and of its subcommands.
func addCompletions(c *cobra.Command) {
	for name, offer := range completions {
		if c.Flags().Lookup(name) != nil {
			_ = c.RegisterFlagCompletionFunc(name, func(c *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
				return slices.DeleteFunc(offer(c), func(s string) bool { return !strings.HasPrefix(s, begun) }), cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
	if c.Flags().Lookup("config") != nil {
		_ = c.MarkFlagFilename("config", "toml")
	}
	if c.Flags().Lookup("expect") != nil {
		_ = c.MarkFlagFilename("expect", "toml")
	}
	for _, child := range c.Commands() {
		addCompletions(child)
	}
}

// orders returns the names of the sort orders of flows.
func orders() []string {
	names := make([]string, len(listing.Orders))
	for i, order := range listing.Orders {
		names[i] = string(order)
	}
	return names
}

// interfaces returns the names of the interfaces in this network namespace.
func interfaces() []string {
	all, _ := net.Interfaces()
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	return names
}

// ruleNames returns the names of the rules in the file that -c names.
func ruleNames(c *cobra.Command) []string {
	path, err := c.Flags().GetString("config")
	if err != nil || path == "" {
		return nil
	}
	config, err := rules.Load(path)
	if err != nil {
		return nil
	}
	names := make([]string, len(config.Policy.Rules))
	for i := range config.Policy.Rules {
		names[i] = config.Policy.Rules[i].Name
	}
	return names
}

// addCompletionCommand adds cobra's completion command. It writes to root's stdout, and
// reports a missing or unknown shell as wrong usage.
func addCompletionCommand(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args = usageArgs(noArguments)
			c.RunE = func(c *cobra.Command, _ []string) error {
				_ = c.Help()
				return exit.Code(exit.Usage)
			}
		}
	}
}

// newHelpCommand returns the help command, which refuses unknown topics.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if of, _, err := c.Root().Find(args); err == nil {
				for _, child := range of.Commands() {
					if child.IsAvailableCommand() && strings.HasPrefix(child.Name(), begun) {
						names = append(names, cobra.CompletionWithDesc(child.Name(), child.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			of, rest, err := c.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = noArguments(of, rest)
			}
			if err != nil {
				return &exit.UsageError{Err: err}
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}
