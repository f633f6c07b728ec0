package meter

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

const (
	// SmallSize is the length of the UDP payload of a small datagram, in bytes.
	SmallSize = 32
	// FragmentedSize is the length of the UDP payload of a fragmented datagram, in bytes. The
	// datagram has three fragments with an MTU of 1500.
	FragmentedSize = 4000

	// flowsOfFamily is the number of flows per kind and address family.
	flowsOfFamily = 4

	// tick is the time that senders and receivers sleep between two rounds.
	tick = 500 * time.Microsecond
	// mostBehind is the maximum delay that a sender makes up for.
	mostBehind = 10 * time.Millisecond
	// quiet is the time without arrivals after which missing datagrams count as lost.
	quiet = time.Second
	// arrivalTimeout is the time limit for the first datagrams of flows, and for the last
	// arrivals.
	arrivalTimeout = 20 * time.Second
)

// Load describes the traffic in each direction.
type Load struct {
	Small      int // datagrams of SmallSize per second
	Fragmented int // datagrams of FragmentedSize per second
	// Stream is the rate of each TCP stream, in bytes per second. There is one stream per
	// direction and address family. The kernel paces the senders (SO_MAX_PACING_RATE), so that
	// bursts do not overflow queues.
	Stream int
}

// Full is the load for the figures in docs/upgrade.md.
var Full = Load{Small: 50_000, Fragmented: 1000, Stream: 12_500_000}

// Share returns a share of the load; 1 is the whole load.
func (l Load) Share(of float64) Load {
	return Load{Small: int(of * float64(l.Small)), Fragmented: int(of * float64(l.Fragmented)), Stream: int(of * float64(l.Stream))}
}

// kind is the kind of a datagram.
type kind int

const (
	small kind = iota
	fragmented
	kinds
)

// size returns the length of the UDP payload in bytes.
func (k kind) size() int { return [kinds]int{SmallSize, FragmentedSize}[k] }

// flow is a pair of connected UDP sockets, one on each host.
type flow struct {
	number  uint16
	kind    kind
	sockets [verdict.Sides]int
	sent    [verdict.Sides]uint64 // datagrams by the sender's side; only the sender uses it until it ends
	tallies [verdict.Sides]tally  // by the sender's side; only the receiver uses it until it ends
}

// Meter sends and receives until it is stopped.
type Meter struct {
	hosts   [verdict.Sides]*lab.Host
	load    Load
	begun   time.Time
	flows   []*flow
	streams []*stream

	stopSending, stopReceiving atomic.Bool
	senders, receivers         errgroup.Group
	arrived                    [verdict.Sides]atomic.Uint64 // datagrams, by the receiver's side
	behind                     [verdict.Sides][kinds]uint64 // by the sender's side
	took                       time.Duration                // duration of sending
}

// Start opens all sockets, connects the streams, and begins to send. The box must already forward.
func Start(hosts [verdict.Sides]*lab.Host, load Load) (*Meter, error) {
	m := &Meter{hosts: hosts, load: load}
	err := m.open()
	if err != nil {
		m.close()
		return nil, err
	}
	m.begun = time.Now()
	for side := range verdict.Side(verdict.Sides) {
		m.senders.Go(func() error { return m.send(side) })
		m.receivers.Go(func() error { return m.receive(side) })
	}
	for _, s := range m.streams {
		s.start()
	}
	return m, nil
}

// receiveWindow is the minimum, default and maximum receive buffer of TCP connections (tcp(7),
// tcp_rmem). With the default, a stream at the full rate can continue for 300 ms without an
// acknowledgment. A sender with an exhausted window would retransmit its last segment (tail loss
// probe).
const receiveWindow = "4096 8388608 16777216"

// open opens and connects all sockets.
func (m *Meter) open() error {
	for _, h := range m.hosts {
		err := h.Do(func() error { return lab.Sysctl(map[string]string{"net/ipv4/tcp_rmem": receiveWindow}) })
		if err != nil {
			return err
		}
	}
	rates := [kinds]int{m.load.Small, m.load.Fragmented}
	for _, ipv6 := range []bool{false, true} {
		for k := range kinds {
			for i := 0; i < flowsOfFamily && rates[k] > 0; i++ {
				if err := m.openFlow(ipv6, k); err != nil {
					return err
				}
			}
		}
		for from := verdict.Side(0); int(from) < verdict.Sides && m.load.Stream > 0; from++ {
			s, err := openStream(m.hosts, from, ipv6, m.load.Stream)
			if err != nil {
				return err
			}
			m.streams = append(m.streams, s)
		}
	}
	return m.introduce()
}

// openFlow opens and connects the sockets of a flow.
func (m *Meter) openFlow(ipv6 bool, k kind) (err error) {
	f := &flow{number: uint16(len(m.flows)), kind: k, sockets: [...]int{-1, -1}}
	m.flows = append(m.flows, f)
	in, insideAddress, err := openUDP(m.hosts[verdict.Inside], ipv6, k == fragmented)
	if err != nil {
		return err
	}
	f.sockets[verdict.Inside] = in
	out, outsideAddress, err := openUDP(m.hosts[verdict.Outside], ipv6, k == fragmented)
	if err != nil {
		return err
	}
	f.sockets[verdict.Outside] = out
	return errors.Join(
		os.NewSyscallError("connect", unix.Connect(in, sockaddr(outsideAddress))),
		os.NewSyscallError("connect", unix.Connect(out, sockaddr(insideAddress))),
	)
}

// introduce sends the first datagram of each flow from the inside, and waits until it arrives at the
// outside. From then on, datagrams from the outside belong to a flow.
func (m *Meter) introduce() error {
	hello := []byte("hello")
	for _, f := range m.flows {
		_, err := unix.Write(f.sockets[verdict.Inside], hello)
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		got := make([]byte, 2*len(hello))
		deadline := time.Now().Add(arrivalTimeout)
		for n := 0; n != len(hello); time.Sleep(tick) {
			n, err = unix.Read(f.sockets[verdict.Outside], got)
			if err != nil && err != unix.EAGAIN {
				return os.NewSyscallError("read", err)
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("the first datagram of flow %d did not arrive", f.number)
			}
		}
	}
	return nil
}

// pacer limits the rate of a sender.
type pacer struct {
	rate   int    // datagrams per second
	handed uint64 // datagrams passed to the kernel
	behind uint64 // datagrams skipped because the sender was late
}

// due returns the number of datagrams to send now, given the time since the start.
func (p *pacer) due(passed time.Duration) int {
	due := int64(passed.Seconds()*float64(p.rate)) - int64(p.handed) - int64(p.behind)
	if most := int64(mostBehind.Seconds()*float64(p.rate)) + 1; due > most {
		p.behind += uint64(due - most)
		due = most
	}
	return int(max(0, due))
}

// bindThread binds the calling goroutine to its thread, and the thread to a CPU. The kernel queues sent
// packets per CPU, so packets of a sender that moves to another CPU could be reordered.
func bindThread(cpu int) error {
	runtime.LockOSThread() // never unlocked, so that the runtime ends the thread with the goroutine
	var allowed, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	for i, n := 0, cpu%allowed.Count(); ; i++ {
		if !allowed.IsSet(i) {
			continue
		}
		if n == 0 {
			set.Set(i)
			return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &set))
		}
		n--
	}
}

// send sends from one side until the meter is stopped.
func (m *Meter) send(from verdict.Side) error {
	if err := bindThread(int(from)); err != nil {
		return err
	}
	var flows [kinds][]*flow
	for _, f := range m.flows {
		flows[f.kind] = append(flows[f.kind], f)
	}
	pacers := [kinds]pacer{{rate: m.load.Small}, {rate: m.load.Fragmented}}
	var batches [kinds]*batch
	for k := range kinds {
		batches[k] = newBatch(k.size())
	}
	for !m.stopSending.Load() {
		for k := range kinds {
			p := &pacers[k]
			due := p.due(time.Since(m.begun))
			for due > 0 {
				n := min((due+len(flows[k])-1)/len(flows[k]), burst)
				f := flows[k][0]
				flows[k] = append(flows[k][1:], f)
				sent, err := f.send(from, batches[k], n)
				if err != nil {
					return fmt.Errorf("send from %v: %w", from, err)
				}
				p.handed += uint64(sent)
				due -= n
			}
			m.behind[from][k] = p.behind
		}
		time.Sleep(tick)
	}
	return nil
}

// send sends the next n datagrams of the flow. It returns the number that the kernel accepted.
func (f *flow) send(from verdict.Side, b *batch, n int) (int, error) {
	now := time.Now().UnixNano()
	for i := range n {
		seal(b.buffers[i], f.number, from, f.sent[from]+uint64(i), now)
	}
	sent, err := b.send(f.sockets[from], n)
	f.sent[from] += uint64(sent)
	if err == unix.EAGAIN || err == unix.ENOBUFS || err == unix.EINTR {
		err = nil // the sender falls behind
	}
	return sent, err
}

// receive receives on one side until the meter is stopped.
func (m *Meter) receive(at verdict.Side) error {
	b := newBatch(FragmentedSize + 1)
	for !m.stopReceiving.Load() {
		for _, f := range m.flows {
			if err := m.drain(f, at, b); err != nil {
				return fmt.Errorf("receive at %v: %w", at, err)
			}
		}
		time.Sleep(tick)
	}
	return nil
}

// drain reads all available datagrams of a flow, and records them.
func (m *Meter) drain(f *flow, at verdict.Side, b *batch) error {
	from := at.Other()
	t := &f.tallies[from]
	for {
		n, err := b.receive(f.sockets[at])
		if err == unix.EAGAIN || err == unix.EINTR {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range n {
			data, received, overflowed := b.datagram(i)
			t.overflow(overflowed)
			number, sent, err := open(data, f.kind.size(), f.number, from)
			if err != nil {
				t.Corrupted++
				continue
			}
			t.record(number, sent, received)
		}
		m.arrived[at].Add(uint64(n))
		if n < burst {
			return nil
		}
	}
}

// Stop stops sending, waits for datagrams in transit, closes all sockets, and returns the report.
func (m *Meter) Stop() (*Report, error) {
	defer m.close()
	m.stopSending.Store(true)
	m.took = time.Since(m.begun)
	err := m.senders.Wait()
	for _, s := range m.streams {
		err = errors.Join(err, s.finish(time.Now().Add(arrivalTimeout)))
	}
	m.awaitQuiet()
	m.stopReceiving.Store(true)
	if err = errors.Join(err, m.receivers.Wait()); err != nil {
		return nil, err
	}
	return m.report(), nil
}

// awaitQuiet waits until no datagram has arrived for the time quiet.
func (m *Meter) awaitQuiet() {
	last, since := uint64(0), time.Now()
	for deadline := since.Add(arrivalTimeout); time.Now().Before(deadline); time.Sleep(tick) {
		arrived := m.Arrived(verdict.Inside) + m.Arrived(verdict.Outside)
		if arrived != last {
			last, since = arrived, time.Now()
		} else if time.Since(since) > quiet {
			return
		}
	}
}

// Arrived returns the number of datagrams that have arrived on a side so far. Any goroutine may
// call it.
func (m *Meter) Arrived(at verdict.Side) uint64 { return m.arrived[at].Load() }

func (m *Meter) close() {
	for _, f := range m.flows {
		for _, fd := range f.sockets {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}
	for _, s := range m.streams {
		s.close()
	}
}
