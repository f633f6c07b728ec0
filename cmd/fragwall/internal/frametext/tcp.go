package frametext

import (
	"encoding/binary"
	"fmt"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// tcpFlags are the letters for the flags of a TCP header, lowest bit first (RFC 9293, section
// 3.1).
const tcpFlags = "FSRP.UEW"

const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	_
	flagACK
	flagURG
)

// appendTCP appends the description of a TCP header. upper must contain at least the header
// without options.
func appendTCP(b, upper []byte) []byte {
	flags := upper[13]
	b = append(b, "Flags ["...)
	for i := range tcpFlags {
		if flags>>i&1 == 1 {
			b = append(b, tcpFlags[i])
		}
	}
	if flags == 0 {
		b = append(b, "none"...)
	}
	b = append(b, ']')
	var tcp layers.TCP
	if err := tcp.DecodeFromBytes(upper, gopacket.NilDecodeFeedback); err != nil {
		return fmt.Appendf(b, ", length %d", len(upper))
	}
	if length := len(tcp.Payload); length > 0 {
		b = fmt.Appendf(b, ", seq %d:%d", tcp.Seq, tcp.Seq+uint32(length))
	} else if flags&(flagFIN|flagSYN|flagRST) != 0 {
		b = fmt.Appendf(b, ", seq %d", tcp.Seq)
	}
	if flags&flagACK != 0 {
		b = fmt.Appendf(b, ", ack %d", tcp.Ack)
	}
	b = fmt.Appendf(b, ", win %d", tcp.Window)
	if flags&flagURG != 0 {
		b = fmt.Appendf(b, ", urg %d", tcp.Urgent)
	}
	if len(tcp.Options) > 0 {
		b = append(b, ", options ["...)
		for i := range tcp.Options {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendOption(b, &tcp.Options[i])
		}
		b = append(b, ']')
	}
	return fmt.Appendf(b, ", length %d", len(tcp.Payload))
}

// appendOption appends a TCP option (RFC 9293, section 3.2, RFC 7323, RFC 2018).
func appendOption(b []byte, o *layers.TCPOption) []byte {
	data := o.OptionData
	switch {
	case o.OptionType == layers.TCPOptionKindEndList:
		return append(b, "eol"...)
	case o.OptionType == layers.TCPOptionKindNop:
		return append(b, "nop"...)
	case o.OptionType == layers.TCPOptionKindMSS && len(data) == 2:
		return fmt.Appendf(b, "mss %d", binary.BigEndian.Uint16(data))
	case o.OptionType == layers.TCPOptionKindWindowScale && len(data) == 1:
		return fmt.Appendf(b, "wscale %d", data[0])
	case o.OptionType == layers.TCPOptionKindSACKPermitted:
		return append(b, "sackOK"...)
	case o.OptionType == layers.TCPOptionKindTimestamps && len(data) == 8:
		return fmt.Appendf(b, "TS val %d ecr %d", binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]))
	case o.OptionType == layers.TCPOptionKindSACK && len(data)%8 == 0:
		b = fmt.Appendf(b, "sack %d ", len(data)/8)
		for ; len(data) > 0; data = data[8:] {
			b = fmt.Appendf(b, "{%d:%d}", binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]))
		}
		return b
	}
	return fmt.Appendf(b, "unknown-%d", o.OptionType)
}
