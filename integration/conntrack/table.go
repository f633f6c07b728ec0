package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// table accesses the conntrack table of a network namespace over ctnetlink
// (linux/netfilter/nfnetlink_conntrack.h).
type table struct {
	socket *nl.NetlinkSocket
}

// Attributes of an entry, and attributes nested in them.
const (
	attributeOriginal  = 1  // CTA_TUPLE_ORIG
	attributeStatus    = 3  // CTA_STATUS
	attributeProtocol  = 4  // CTA_PROTOINFO
	attributeTimeout   = 7  // CTA_TIMEOUT
	attributeID        = 12 // CTA_ID
	tupleAddresses     = 1  // CTA_TUPLE_IP
	tupleTransport     = 2  // CTA_TUPLE_PROTO
	addressMask        = 1  // CTA_IP_V4_SRC and CTA_IP_V6_SRC are odd
	transportNumber    = 1  // CTA_PROTO_NUM
	transportSrcPort   = 2  // CTA_PROTO_SRC_PORT
	transportDstPort   = 3  // CTA_PROTO_DST_PORT
	stateOfProtocol    = 1  // CTA_PROTOINFO_TCP_STATE, …_SCTP_STATE
	statusSeenReply    = 1 << 1
	messageHeader      = 4 // struct nfgenmsg
	conntrackSubsystem = unix.NFNL_SUBSYS_CTNETLINK << 8
)

// Names of the states, indexed by their numbers (linux/netfilter/nf_conntrack_tcp.h,
// nf_conntrack_sctp.h).
var (
	tcpStates = []string{
		"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
	}
	sctpStates = []string{
		"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT",
	}
)

// entry is one conntrack entry.
type entry struct {
	family           uint8
	original         []byte // CTA_TUPLE_ORIG, still encoded
	src, dst         netip.Addr
	srcPort, dstPort uint16
	protocol         uint8
	state            uint8
	replied          bool
	left             time.Duration // until it expires
}

func openTable() (*table, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open ctnetlink: %w", err)
	}
	return &table{socket: s}, nil
}

func (t *table) close() { t.socket.Close() }

// request returns a ctnetlink message. The body holds attributes.
func (t *table) request(message, flags int, family uint8, body []byte) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(conntrackSubsystem|message, flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: t.socket}}
	r.AddRawData(append([]byte{family, nl.NFNETLINK_V0, 0, 0}, body...))
	return r
}

// flush removes all entries.
func (t *table) flush() error {
	_, err := t.request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, unix.AF_UNSPEC, nil).Execute(unix.NETLINK_NETFILTER, 0)
	return err
}

// entries returns all entries, by the slot of their inside address.
func (t *table) entries() (map[Slot][]entry, error) {
	messages, err := t.request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, unix.AF_UNSPEC, nil).Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, fmt.Errorf("read conntrack table: %w", err)
	}
	bySlot := make(map[Slot][]entry, len(messages))
	for _, m := range messages {
		e := parseEntry(m)
		inside := e.src
		if !prefixes[verdict.Inside][0].Contains(inside) && !prefixes[verdict.Inside][1].Contains(inside) {
			inside = e.dst
		}
		bySlot[slotOf(inside)] = append(bySlot[slotOf(inside)], e)
	}
	return bySlot, nil
}

// attributes calls f with each attribute of a message or of another attribute.
func attributes(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[unix.SizeofNlAttr:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

func parseEntry(m []byte) (e entry) {
	e.family = m[0]
	attributes(m[messageHeader:], func(kind uint16, value []byte) {
		switch kind {
		case attributeOriginal:
			e.original = value
			attributes(value, e.parseTuple)
		case attributeStatus:
			e.replied = binary.BigEndian.Uint32(value)&statusSeenReply != 0
		case attributeTimeout:
			e.left = time.Duration(binary.BigEndian.Uint32(value)) * time.Second
		case attributeProtocol:
			attributes(value, func(_ uint16, value []byte) {
				attributes(value, func(kind uint16, value []byte) {
					if kind == stateOfProtocol {
						e.state = value[0]
					}
				})
			})
		}
	})
	return e
}

func (e *entry) parseTuple(kind uint16, value []byte) {
	attributes(value, func(inner uint16, value []byte) {
		switch {
		case kind == tupleAddresses && inner&addressMask != 0:
			e.src, _ = netip.AddrFromSlice(value)
		case kind == tupleAddresses:
			e.dst, _ = netip.AddrFromSlice(value)
		case kind == tupleTransport && inner == transportNumber:
			e.protocol = value[0]
		case kind == tupleTransport && inner == transportSrcPort:
			e.srcPort = binary.BigEndian.Uint16(value)
		case kind == tupleTransport && inner == transportDstPort:
			e.dstPort = binary.BigEndian.Uint16(value)
		}
	})
}

// slack is the uncertainty of an entry's remaining time: ctnetlink reads and sets whole seconds,
// and the exchange itself takes time.
const slack = 3 * time.Second

// age subtracts a time from the remaining time of entries, deletes those that expire, and returns
// the others. close is set if an entry is within slack of its timeout, so that it is random whether
// it expires.
func (t *table) age(entries []entry, by time.Duration) (left []entry, close bool, err error) {
	for _, e := range entries {
		close = close || (e.left-by).Abs() <= slack
		message, flags := nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK
		body := attribute(attributeOriginal|unix.NLA_F_NESTED, e.original)
		if e.left > by {
			message, flags = nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_ACK|unix.NLM_F_REPLACE
			e.left -= by
			body = append(body, attribute(attributeTimeout, binary.BigEndian.AppendUint32(nil, uint32(e.left/time.Second)))...)
			left = append(left, e)
		}
		if _, err := t.request(message, flags, e.family, body).Execute(unix.NETLINK_NETFILTER, 0); err != nil && err != unix.ENOENT {
			return nil, false, fmt.Errorf("age conntrack entry: %w", err)
		}
	}
	return left, close, nil
}

func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

// name describes the state of an entry.
func (e *entry) name() string {
	switch {
	case e.protocol == packet.ProtocolTCP && int(e.state) < len(tcpStates):
		return "tcp " + tcpStates[e.state]
	case e.protocol == packet.ProtocolSCTP && int(e.state) < len(sctpStates):
		return "sctp " + sctpStates[e.state]
	case e.replied:
		return fmt.Sprintf("protocol %d answered", e.protocol)
	}
	return fmt.Sprintf("protocol %d unanswered", e.protocol)
}

// entryFor finds the entry of a packet by addresses, protocol and ports, in either direction. It
// returns the entry's state and its remaining time, or "" and 0 without an entry.
func entryFor(entries []entry, p []byte) (state string, left time.Duration) {
	_, src, dst, _ := tagOf(p)
	protocol, upper := p[9], p[20:]
	if p[0]>>4 == 6 {
		protocol, upper = p[6], p[40:]
	}
	var srcPort, dstPort uint16
	if packet.HasPorts(protocol) {
		srcPort, dstPort = binary.BigEndian.Uint16(upper), binary.BigEndian.Uint16(upper[2:])
	}
	for _, e := range entries {
		there := e.src == src && e.dst == dst && e.srcPort == srcPort && e.dstPort == dstPort
		back := e.src == dst && e.dst == src && e.srcPort == dstPort && e.dstPort == srcPort
		if e.protocol == protocol && (there || back) {
			return e.name(), e.left
		}
	}
	return "", 0
}
