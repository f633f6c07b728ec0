package main

import (
	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/explain"
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
	var q explain.Question
	flags := c.Flags()
	flags.StringVar(&q.From, "from", "", "side that it comes in by: `inside|outside` (required)")
	flags.StringVar(&q.Protocol, "proto", "", "protocol, a `name or number` (required)")
	flags.StringVar(&q.Src, "src", "", "source `address` (required)")
	flags.StringVar(&q.Dst, "dst", "", "destination `address` (required)")
	flags.StringVar(&q.SrcPort, "sport", "49152", "source `port`, of a protocol with ports")
	flags.StringVar(&q.DstPort, "dport", "0", "destination `port`, of a protocol with ports")
	flags.StringVar(&q.ICMPType, "icmp-type", "echo-request", "ICMP type, a `name or number`")
	flags.StringVar(&q.ICMPCode, "icmp-code", "0", "ICMP code, a `number`")
	flags.StringVar(&q.VLAN, "vlan", "none", "VLAN, a `number` or \"none\"")
	flags.BoolVar(&q.Fragmented, "fragmented", false, "it came in fragments")
	flags.BoolVar(&q.SourceRoute, "source-route", false, "it has an IPv4 source route or an IPv6 routing header with segments left")
	c.RunE = func(c *cobra.Command, _ []string) error {
		d, err := q.Datagram(c.Flags().Changed)
		if err != nil {
			return exit.Usagef("%w; see %q", err, c.CommandPath()+" --help")
		}
		config, err := loadConfig(c, *path)
		if err != nil {
			return err
		}
		return explain.Write(c.OutOrStdout(), config, d)
	}
	return c
}
