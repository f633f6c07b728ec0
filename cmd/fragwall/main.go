package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
)

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs the command line and returns the exit code.
func execute(args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	addCompletionCommand(root)
	err := root.Execute()
	if err == nil {
		return 0
	}
	var code exit.Code
	if errors.As(err, &code) {
		return int(code)
	}
	fmt.Fprintf(stderr, "fragwall: %v\n", err)
	if usage := (*exit.UsageError)(nil); errors.As(err, &usage) {
		return exit.Usage
	}
	return exit.Failed
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fragwall",
		Short: "Packet filter that judges whole datagrams, fragmented or not",
		Long: `fragwall is a bump in the wire: it reads frames from one TAP, reassembles IPv4 and
IPv6 fragments with gVisor's netstack, judges each whole datagram by a 5-tuple
policy, and writes what the policy accepts to the other TAP.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usageArgs(noArguments),
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Help()
			return exit.Code(exit.Usage)
		},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if name := c.Flags().Arg(0); name != "" && c.HasSubCommands() { // the flags of an unknown command are unknown
			return usageArgs(noArguments)(c, []string{name})
		}
		return exit.Usagef("%w; see %q", err, c.CommandPath()+" --help")
	})
	root.SuggestionsMinimumDistance = 2
	root.SetVersionTemplate("fragwall {{.Version}}\n")
	root.SetHelpCommand(newHelpCommand())
	root.AddCommand(newRunCommand(), newStandbyCommand(), newSidecarCommand(), newCheckCommand(), newReplayCommand(), newDemoCommand(), newExplainCommand(), newReloadCommand(), newStatusCommand(), newFlowsCommand(), newWaitingCommand(), newCaptureCommand(), newVersionCommand())
	addCompletions(root)
	return root
}

// noArguments refuses arguments, with a suggestion.
func noArguments(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !c.HasSubCommands():
		if f := c.Flags().Lookup("config"); f != nil && !f.Changed {
			return fmt.Errorf("unexpected argument %q; did you mean -c %s?", args[0], args[0])
		}
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	if best := c.SuggestionsFor(args[0]); len(best) > 0 {
		return fmt.Errorf("unknown command %q; did you mean %q?", args[0], best[0])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// usageArgs marks errors in arguments, and flags that exclude each other, as wrong usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		err := cmp.Or(check(c, args), exclusion(c.ValidateFlagGroups()))
		switch {
		case err == nil:
			return nil
		case strings.HasSuffix(err.Error(), "?"): // the message already has a suggestion
			return &exit.UsageError{Err: err}
		default:
			return exit.Usagef("%w; see %q", err, c.CommandPath()+" --help")
		}
	}
}

// exclusion shortens cobra's message about flags that exclude each other.
func exclusion(err error) error {
	if err == nil {
		return nil
	}
	_, names, found := strings.Cut(err.Error(), "none of the others can be; [")
	names, _, closed := strings.Cut(names, "]")
	if !found || !closed {
		return err
	}
	return fmt.Errorf("--%s exclude each other", strings.Join(strings.Fields(names), " and --"))
}

// configFlag adds the flag that names the configuration file.
func configFlag(c *cobra.Command) *string {
	path := c.Flags().StringP("config", "c", "", "configuration `file` (required)")
	c.PreRunE = func(*cobra.Command, []string) error {
		if *path == "" {
			return exit.Usagef("no configuration file given; add -c FILE")
		}
		return nil
	}
	return path
}

// instanceFlags adds the flags that select a running instance by its control socket.
func instanceFlags(c *cobra.Command, i *control.Instance) {
	c.Flags().StringVarP(&i.File, "config", "c", "", "configuration `file` that the instance runs with")
	c.Flags().StringVar(&i.Socket, "socket", "", "control `socket` of the instance")
	c.MarkFlagsMutuallyExclusive("config", "socket")
}
