package flow

import "time"

// State is the state of a flow. The zero value is not a valid state.
type State uint8

// The states of flows. Those of TCP have the same meaning as in the kernel
// (net/netfilter/nf_conntrack_proto_tcp.c): the box infers the state of the hosts from the
// packets that it sees.
const (
	notBegun         State = iota
	SynSent                // SYN by the originator
	SynSent2               // SYN by both: simultaneous open
	SynRecv                // SYN/ACK
	Established            // ACK
	FinWait                // FIN by one side
	CloseWait              // and an ACK after it
	LastAck                // FIN by both sides
	TimeWait               // and the last ACK
	Close                  // RST
	Unreplied              // UDP, UDP-Lite and GRE: datagrams of the originator only
	Replied                // UDP, UDP-Lite and GRE: answered
	Query                  // ICMP query
	Closed                 // SCTP: INIT by the originator, or the association has ended
	CookieWait             // INIT ACK
	CookieEchoed           // COOKIE ECHO
	SCTPEstablished        // COOKIE ACK
	ShutdownSent           // SHUTDOWN by the originator
	ShutdownReceived       // SHUTDOWN by the responder
	ShutdownAckSent        // SHUTDOWN ACK
	HeartbeatSent          // HEARTBEAT on a new path
	Generic                // any other protocol
	states
)

var stateNames = [states]string{
	SynSent: "SYN_SENT", SynSent2: "SYN_SENT2", SynRecv: "SYN_RECV", Established: "ESTABLISHED",
	FinWait: "FIN_WAIT", CloseWait: "CLOSE_WAIT", LastAck: "LAST_ACK", TimeWait: "TIME_WAIT", Close: "CLOSE",
	Unreplied: "UNREPLIED", Replied: "REPLIED", Query: "QUERY",
	Closed: "CLOSED", CookieWait: "COOKIE_WAIT", CookieEchoed: "COOKIE_ECHOED", SCTPEstablished: "ESTABLISHED",
	ShutdownSent: "SHUTDOWN_SENT", ShutdownReceived: "SHUTDOWN_RECD", ShutdownAckSent: "SHUTDOWN_ACK_SENT",
	HeartbeatSent: "HEARTBEAT_SENT", Generic: "GENERIC",
}

// String returns the state's name; those of TCP are conntrack's.
func (s State) String() string {
	if s < states {
		return stateNames[s]
	}
	return ""
}

// Results of a segment other than a state.
const (
	// invalid: no host sends it in this state.
	invalid = notBegun
	// ignored: it passes, since the hosts may know more than the box, and their reply will
	// show. It changes no state and does not keep the flow alive.
	ignored = states
)

// next is the state table of TCP. It has the state that a segment leads to, by the current
// state, the segment's kind, and its sender: the originator or the responder. It is the
// kernel's table (tcp_conntracks in nf_conntrack_proto_tcp.c).
var next = [states]struct{ origin, reply [kinds]State }{
	SynSent: {
		[kinds]State{kindSyn: SynSent, kindRst: Close},
		[kinds]State{kindSyn: SynSent2, kindSynAck: SynRecv, kindAck: ignored, kindRst: Close},
	},
	SynSent2: {
		[kinds]State{kindSyn: SynSent2, kindSynAck: SynRecv, kindRst: Close},
		[kinds]State{kindSyn: SynSent2, kindSynAck: SynRecv, kindAck: ignored, kindRst: Close},
	},
	SynRecv: {
		[kinds]State{kindSyn: ignored, kindSynAck: SynRecv, kindFin: FinWait, kindAck: Established, kindRst: Close},
		[kinds]State{kindSynAck: ignored, kindFin: FinWait, kindAck: SynRecv, kindRst: Close},
	},
	Established: {
		[kinds]State{kindSyn: ignored, kindFin: FinWait, kindAck: Established, kindRst: Close},
		[kinds]State{kindSynAck: ignored, kindFin: FinWait, kindAck: Established, kindRst: Close},
	},
	FinWait: {
		[kinds]State{kindSyn: ignored, kindFin: LastAck, kindAck: CloseWait, kindRst: Close},
		[kinds]State{kindSynAck: ignored, kindFin: LastAck, kindAck: CloseWait, kindRst: Close},
	},
	CloseWait: {
		[kinds]State{kindSyn: ignored, kindFin: LastAck, kindAck: CloseWait, kindRst: Close},
		[kinds]State{kindSynAck: ignored, kindFin: LastAck, kindAck: CloseWait, kindRst: Close},
	},
	LastAck: {
		[kinds]State{kindSyn: ignored, kindFin: LastAck, kindAck: TimeWait, kindRst: Close},
		[kinds]State{kindSynAck: ignored, kindFin: LastAck, kindAck: TimeWait, kindRst: Close},
	},
	TimeWait: {
		[kinds]State{kindSyn: SynSent, kindFin: TimeWait, kindAck: TimeWait, kindRst: Close},
		[kinds]State{kindSyn: SynSent, kindSynAck: ignored, kindFin: TimeWait, kindAck: TimeWait, kindRst: Close},
	},
	Close: {
		[kinds]State{kindSyn: SynSent, kindFin: Close, kindAck: Close, kindRst: Close},
		[kinds]State{kindSynAck: ignored, kindFin: Close, kindAck: Close, kindRst: Close},
	},
}

// timeout selects the timeout of a flow: that of its state, or one of the following.
type timeout uint8

const (
	// retransmitted: a segment of an open connection was retransmitted several times, or its
	// receiver offers no window.
	retransmitted = timeout(states) + iota
	// unacknowledged: data of an open connection has not been acknowledged yet.
	unacknowledged
	// stream: UDP in both directions for more than two seconds.
	stream
	// greStream: GRE in both directions.
	greStream
	timeouts
)

// durations are the times that a flow is kept without a datagram of its own: the kernel's
// defaults (Documentation/networking/nf_conntrack-sysctl.rst; the comments give the end of
// nf_conntrack_…_timeout…).
var durations = [timeouts]time.Duration{
	SynSent:          120 * time.Second,    // tcp_syn_sent
	SynSent2:         120 * time.Second,    // tcp_syn_sent2
	SynRecv:          60 * time.Second,     // tcp_syn_recv
	Established:      432000 * time.Second, // tcp_established
	FinWait:          120 * time.Second,    // tcp_fin_wait
	CloseWait:        60 * time.Second,     // tcp_close_wait
	LastAck:          30 * time.Second,     // tcp_last_ack
	TimeWait:         120 * time.Second,    // tcp_time_wait
	Close:            10 * time.Second,     // tcp_close
	Unreplied:        30 * time.Second,     // udp, gre
	Replied:          30 * time.Second,     // udp
	Query:            30 * time.Second,     // icmp, icmpv6
	Closed:           10 * time.Second,     // sctp_closed
	CookieWait:       3 * time.Second,      // sctp_cookie_wait
	CookieEchoed:     3 * time.Second,      // sctp_cookie_echoed
	SCTPEstablished:  210 * time.Second,    // sctp_established
	ShutdownSent:     3 * time.Second,      // sctp_shutdown_sent
	ShutdownReceived: 3 * time.Second,      // sctp_shutdown_recd
	ShutdownAckSent:  3 * time.Second,      // sctp_shutdown_ack_sent
	HeartbeatSent:    30 * time.Second,     // sctp_heartbeat_sent
	Generic:          600 * time.Second,    // generic
	retransmitted:    300 * time.Second,    // tcp_max_retrans
	unacknowledged:   300 * time.Second,    // tcp_unacknowledged
	stream:           120 * time.Second,    // udp_stream
	greStream:        180 * time.Second,    // gre_stream
}
