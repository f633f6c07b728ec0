package conntrack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// ruleset accepts new connections from inside, and the packets of existing connections from both
// sides. It writes the conntrack state of each accepted packet into the DSCP. It also accepts
// invalid packets with a DSCP of their own: they create no entry, so accepting them does not change
// the table. It must drop new packets from outside, because accepting them would create an entry.
const ruleset = `
table inet oracle {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state invalid meta nfproto ipv4 ip dscp set 4 accept
		ct state invalid meta nfproto ipv6 ip6 dscp set 4 accept
		ct state established meta nfproto ipv4 ip dscp set 1 accept
		ct state established meta nfproto ipv6 ip6 dscp set 1 accept
		ct state related meta nfproto ipv4 ip dscp set 2 accept
		ct state related meta nfproto ipv6 ip6 dscp set 2 accept
		iifname fw-in ct state new meta nfproto ipv4 ip dscp set 3 accept
		iifname fw-in ct state new meta nfproto ipv6 ip6 dscp set 3 accept
	}
}
`

// Verdict is the state that connection tracking assigns to a packet.
type Verdict uint8

// The verdicts are the DSCP values of the ruleset. A packet that did not leave is Dropped; most of
// these are new packets from outside.
const (
	Dropped Verdict = iota
	Established
	Related
	New
	Invalid
)

// String returns the name that nftables uses.
func (v Verdict) String() string {
	return [...]string{"dropped", "established", "related", "new", "invalid"}[v]
}

// Passes reports whether the ruleset accepts the packet.
func (v Verdict) Passes() bool { return v == Established || v == Related || v == New }

// Observation is how the kernel judged a step.
type Observation struct {
	Verdict Verdict
	Before  string        // state of the packet's entry before it, such as "tcp ESTABLISHED"; "" without an entry
	Left    time.Duration // remaining time of that entry
	// Close is set if a pause ends so close to the timeout of an entry that it is random
	// whether the entry still existed.
	Close bool
}

// tuns are the names of the TUN devices.
var tuns = [verdict.Sides]string{verdict.Inside: "fw-in", verdict.Outside: "fw-out"}

// Kernel is a network namespace that routes between two TUN devices with connection tracking. Only
// one goroutine may use it.
type Kernel struct {
	namespace *lab.Namespace
	files     [verdict.Sides]*os.File
	raws      [verdict.Sides]syscall.RawConn
	table     *table
	buffer    []byte
}

// NewKernel makes the namespace. loose is the value of net.netfilter.nf_conntrack_tcp_loose: whether
// connection tracking picks up a TCP connection without its SYN. [Kernel.Close] removes the
// namespace.
func NewKernel(loose bool) (k *Kernel, err error) {
	k = &Kernel{buffer: make([]byte, 1<<16)}
	if k.namespace, err = lab.NewNamespace("conntrack"); err != nil {
		return nil, err
	}
	err = k.namespace.Do(func() error { return k.configure(loose) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("configure connection tracking: %w", err), k.Close())
	}
	return k, nil
}

// Close removes the namespace and its devices.
func (k *Kernel) Close() error {
	var errs []error
	for _, f := range k.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if k.table != nil {
		k.table.close()
	}
	return errors.Join(append(errs, k.namespace.Close())...)
}

func (k *Kernel) configure(loose bool) (err error) {
	for side := range k.files {
		if err = k.open(verdict.Side(side)); err != nil {
			return err
		}
	}
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(ruleset)
	if text, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, text)
	}
	settings := map[string]string{
		"net/ipv4/ip_forward":                       "1",
		"net/ipv6/conf/all/forwarding":              "1",
		"net/ipv4/conf/all/rp_filter":               "0",
		"net/netfilter/nf_conntrack_tcp_loose":      map[bool]string{false: "0", true: "1"}[loose],
		"net/netfilter/nf_conntrack_tcp_be_liberal": "0",
		"net/netfilter/nf_conntrack_checksum":       "1",
	}
	for _, name := range tuns {
		settings["net/ipv4/conf/"+name+"/rp_filter"] = "0"
	}
	if err = lab.Sysctl(settings); err != nil {
		return err
	}
	k.table, err = openTable()
	return err
}

// queue is the length of a TUN device's queue in packets.
const queue = 500

// open makes the TUN device of a side and adds routes to the side's addresses.
func (k *Kernel) open(side verdict.Side) error {
	device, err := water.New(water.Config{
		DeviceType:             water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: tuns[side]},
	})
	if err != nil {
		return fmt.Errorf("make tun %q: %w", tuns[side], err)
	}
	k.files[side] = device.ReadWriteCloser.(*os.File)
	if k.raws[side], err = k.files[side].SyscallConn(); err != nil {
		return err
	}
	link, err := netlink.LinkByName(tuns[side])
	if err != nil {
		return err
	}
	if err := errors.Join(
		lab.Sysctl(map[string]string{"net/ipv6/conf/" + tuns[side] + "/addr_gen_mode": "1"}),
		netlink.LinkSetTxQLen(link, queue),
		netlink.LinkSetUp(link),
	); err != nil {
		return err
	}
	for _, p := range prefixes[side] {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: network(p)}); err != nil {
			return fmt.Errorf("add route to %s: %w", p, err)
		}
	}
	return nil
}

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// run is an exchange in progress.
type run struct {
	*Exchange
	slot Slot
	at   int // index of the next step
	seen []Observation

	// State of the current UDP flow:
	begun  time.Time // in real time
	held   bool      // there was a pause in real time
	paused bool      // there was a pause that was only subtracted
}

// Run plays exchanges concurrently, one step of each per round; the i-th uses the slot first+i. It
// returns the observations of all steps by exchange and step. At the end it flushes the conntrack
// table.
func (k *Kernel) Run(exchanges []Exchange, first Slot) ([][]Observation, error) {
	runs := make([]run, len(exchanges))
	observations := make([][]Observation, len(exchanges))
	for i := range exchanges {
		observations[i] = make([]Observation, len(exchanges[i].Steps))
		runs[i] = run{Exchange: &exchanges[i], slot: first + Slot(i), seen: observations[i]}
	}
	for {
		due := unheld(runs)
		if len(due) == 0 {
			if due = unfinished(runs); len(due) == 0 {
				return observations, k.table.flush()
			}
			time.Sleep(Hold)
		}
		if err := k.round(runs, due, first); err != nil {
			return nil, err
		}
	}
}

// unfinished returns the runs that have a step left.
func unfinished(runs []run) (due []*run) {
	for i := range runs {
		if runs[i].at < len(runs[i].Steps) {
			due = append(due, &runs[i])
		}
	}
	return due
}

// unheld returns the runs whose next step has no pause in real time.
func unheld(runs []run) (due []*run) {
	for _, r := range unfinished(runs) {
		if !r.Steps[r.at].Held {
			due = append(due, r)
		}
	}
	return due
}

// round plays the next step of each run in due.
func (k *Kernel) round(runs []run, due []*run, first Slot) error {
	entries, err := k.table.entries()
	if err != nil {
		return err
	}
	for _, r := range due {
		step, seen := &r.Steps[r.at], &r.seen[r.at]
		own := entries[r.slot]
		if step.Pause > 0 {
			if own, seen.Close, err = k.table.age(own, step.Pause); err != nil {
				return err
			}
		}
		seen.Before, seen.Left = entryFor(own, step.Packet())
		seen.Close = seen.Close || r.late()
	}
	for i, r := range due {
		step := &r.Steps[r.at]
		if _, err := k.files[step.From].Write(step.Packet()); err != nil {
			return fmt.Errorf("send packet: %w", err)
		}
		if r.at++; (i+1)%(queue/2) == 0 || i+1 == len(due) {
			if err := k.collect(runs, first); err != nil {
				return err
			}
		}
	}
	return nil
}

// late reports whether the real time since a UDP flow began differs from the time of the exchange
// so much that the kernel may decide differently whether the flow is a stream.
func (r *run) late() bool {
	if r.Kind != "udp" {
		return false
	}
	if last := r.at - 1; last < 0 || r.Steps[last].Honest && r.seen[last].Verdict == New && r.seen[last].Before == "" {
		r.begun, r.held, r.paused = time.Now(), false, false
	}
	step := &r.Steps[r.at]
	r.held = r.held || step.Held && r.at > 0
	late := !r.held && (r.paused || time.Since(r.begun) > Hold/2)
	r.paused = r.paused || step.Pause > 0
	return late
}

// collect reads the forwarded packets from both TUN devices. It need not wait: the kernel has
// routed a packet when the write to the TUN device returns.
func (k *Kernel) collect(runs []run, first Slot) error {
	for side := range k.raws {
		from := verdict.Side(side).Other()
		var failure error
		err := k.raws[side].Control(func(fd uintptr) {
			for {
				n, err := unix.Read(int(fd), k.buffer)
				if err != nil {
					failure = err
					return
				}
				note(runs, first, from, k.buffer[:n])
			}
		})
		if failure != unix.EAGAIN {
			err = errors.Join(err, failure)
		}
		if err != nil {
			return fmt.Errorf("read from tun: %w", err)
		}
	}
	return nil
}

// note records the verdict of a packet that arrived on the side from and was forwarded.
func note(runs []run, first Slot, from verdict.Side, p []byte) {
	n, src, dst, ok := tagOf(p)
	if !ok {
		return
	}
	inside := src
	if from == verdict.Outside {
		inside = dst
	}
	i := int(slotOf(inside) - first)
	if i < 0 || i >= len(runs) || n >= runs[i].at {
		return // sent by the kernel itself, such as a multicast listener report
	}
	class := p[1] >> 2
	if p[0]>>4 == 6 {
		class = (p[0]<<4 | p[1]>>4) >> 2
	}
	if runs[i].Steps[n].From == from {
		runs[i].seen[n].Verdict = Verdict(class)
	}
}
