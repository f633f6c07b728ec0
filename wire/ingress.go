package wire

import (
	"sync/atomic"
	"time"

	"fragwall/filter"
	"fragwall/packet/verdict"
)

// ingress is the state of one side that its lanes share.
type ingress struct {
	side       verdict.Side
	mtu        mtu
	egressMTU  *mtu                          // of the other side
	policy     *atomic.Pointer[filter.Table] // of both sides
	watch      *watch                        // of both sides
	fastPath   FastPath                      // nil if there is none
	now        func() time.Time
	started    time.Time                // zero of the policy's clock
	replies    *filter.Bucket           // limits the replies to rejected datagrams
	waiting    *[verdict.Sides]Counters // of the held frames; belongs to the wire
	latency    *Latency
	rest       *rest // of both sides
	directions []*direction
}

// replyRate limits the replies to rejected datagrams of one side, so that a flood does not
// cause another one: net.ipv4.icmp_msgs_per_sec.
var replyRate = filter.Rate{Count: 1000, Per: time.Second}

// mtu is the length in bytes of the longest packet that may be sent out of a side. It may
// change while frames flow.
type mtu struct{ bytes atomic.Int32 }

func (m *mtu) get() int      { return int(m.bytes.Load()) }
func (m *mtu) set(bytes int) { m.bytes.Store(int32(bytes)) }
