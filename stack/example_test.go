package stack_test

import (
	"fmt"
	"net/netip"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/stack"
)

// printed is a ledger that prints the dropped fragments.
type printed struct{}

func (printed) Held(*stack.Datagram) {}
func (printed) Dropped(d *stack.Datagram, why verdict.Reason) {
	fmt.Printf("dropped, %v: number of fragments: %d\n", why, d.Len())
	d.Release()
}
func (printed) Credited(*stack.Datagram) {}

// limits are the options of the examples.
var limits = stack.Options{
	TimeoutIPv4: 30 * time.Second, TimeoutIPv6: 60 * time.Second,
	Memory: 1 << 20, MaxFragments: 64, MaxDatagrams: 1024,
	Ledger: printed{},
}

// large returns the fragments of a datagram of 3,008 bytes.
func large() [][]byte {
	src, dst := netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("192.0.2.53:53")
	return packettest.UDP(src, dst, make([]byte, 3000)).Fragments(1480)
}

// Fragments in any order become a datagram, which is judged as one. Its fragments can then be
// forwarded as they arrived.
func ExampleReassembler() {
	reassembler := stack.NewReassembler(limits)
	defer reassembler.Close()
	frames, now := large(), time.Now()
	for _, i := range []int{2, 0, 1} {
		var p packet.Parsed
		if reason := p.Decode(frames[i]); reason != verdict.Passed {
			fmt.Println("drop:", reason)
			continue
		}
		datagram, reason := reassembler.Add(frames[i], &p, verdict.Inside, now)
		switch {
		case datagram != nil:
			p.Complete(datagram.Payload())
			fmt.Printf("complete: %d bytes in %d fragments, port %d\n", datagram.PayloadLength(), datagram.Len(), p.DstPort)
			datagram.Release()
		case reason != verdict.Passed:
			fmt.Println("drop:", reason)
		default:
			fmt.Println("waiting")
		}
	}
	// Output:
	// waiting
	// waiting
	// complete: 3008 bytes in 3 fragments, port 53
}

// The fragments of a datagram that is not complete by its deadline are dropped.
func ExampleReassembler_timeout() {
	reassembler := stack.NewReassembler(limits)
	defer reassembler.Close()
	frame, now := large()[0], time.Now()
	var p packet.Parsed
	p.Decode(frame)
	reassembler.Add(frame, &p, verdict.Inside, now)
	reassembler.Expire(now.Add(31 * time.Second))
	// Output:
	// dropped, fragment_timeout: number of fragments: 1
}

// A validator keeps no payload: the caller judges the first fragment, and the others follow
// its verdict.
func ExampleValidator() {
	validator := stack.NewValidator(limits)
	defer validator.Close()
	now := time.Now()
	for i, frame := range large() {
		var p packet.Parsed
		p.Decode(frame)
		claim, reason := validator.Claim(frame, &p, verdict.Inside, now)
		if reason != verdict.Passed {
			fmt.Println("drop:", reason)
			continue
		}
		if claim.First() {
			reason = verdict.PolicyDefault // no rule accepts it
			validator.Settle(claim, reason)
		}
		fmt.Println("fragment", i, reason)
	}
	// Output:
	// fragment 0 policy_default
	// drop: policy_default
	// drop: policy_default
}
