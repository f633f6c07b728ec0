package meter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// Stream holds the results of a TCP stream.
type Stream struct {
	From            verdict.Side
	IPv6            bool
	Bytes           uint64  // received with the right content
	Retransmissions uint32  // segments retransmitted until the stream was stopped (tcpi_total_retrans)
	Rate            float64 // bytes per second
}

// stream is a TCP connection that the inside host opened and over which one side sends.
type stream struct {
	from             verdict.Side
	ipv6             bool
	sender, receiver *net.TCPConn
	stop             atomic.Bool
	work             errgroup.Group
	begun            time.Time
	bytes            uint64
	took             time.Duration
	retransmissions  uint32
}

// ahead is the amount of unsent data in the kernel, as a time at the stream's rate. Without unsent
// data, TCP would retransmit its last segment (tail loss probe, RFC 8985 section 7.3).
const ahead = time.Second

// dialTimeout is the time limit for opening a connection.
const dialTimeout = 10 * time.Second

// pattern is the content of streams, which is repeated. The period is prime, so that consecutive
// segments and buffers start at different positions. The variable holds the pattern twice.
var pattern = func() []byte {
	b, r := make([]byte, 65521), rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return append(b, b...)
}()

// period is the number of bytes after which the pattern repeats.
var period = len(pattern) / 2

// openStream opens the connection of a stream. from is the side that sends, rate is in bytes per second.
func openStream(hosts [verdict.Sides]*lab.Host, from verdict.Side, ipv6 bool, rate int) (*stream, error) {
	listener, err := hosts[verdict.Outside].ListenTCP(ipv6, 0)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).AddrPort().Port()
	c, err := hosts[verdict.Inside].DialTCP(netip.AddrPortFrom(hosts[verdict.Outside].Addr(ipv6), port), dialTimeout)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	ends := [verdict.Sides]*net.TCPConn{verdict.Inside: c.(*net.TCPConn)}
	if err = listener.SetDeadline(time.Now().Add(dialTimeout)); err == nil {
		ends[verdict.Outside], err = listener.AcceptTCP()
	}
	s := &stream{from: from, ipv6: ipv6, sender: ends[from], receiver: ends[from.Other()]}
	if err == nil {
		err = control(s.sender, func(fd int) error {
			return errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, rate),
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, int(ahead.Seconds()*float64(rate))),
			)
		})
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return s, nil
}

// control calls f with a connection's descriptor.
func control(c *net.TCPConn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Control(func(fd uintptr) { failure = f(int(fd)) })
	return errors.Join(err, failure)
}

func (s *stream) start() {
	s.begun = time.Now()
	s.work.Go(s.send)
	s.work.Go(s.receive)
}

// send writes until the stream is stopped, and then closes the sending direction.
func (s *stream) send() error {
	const chunk = 16 << 10
	for at := 0; !s.stop.Load(); at = (at + chunk) % period {
		if _, err := s.sender.Write(pattern[at : at+chunk]); err != nil {
			return fmt.Errorf("stream from %v: %w", s.from, err)
		}
	}
	return s.sender.CloseWrite()
}

// receive reads to the end of the stream, and compares the content.
func (s *stream) receive() error {
	b := make([]byte, period)
	for {
		n, err := s.receiver.Read(b)
		at := int(s.bytes % uint64(period))
		if !bytes.Equal(b[:n], pattern[at:at+n]) {
			return fmt.Errorf("stream from %v: the received bytes differ from those sent, after byte %d", s.from, s.bytes)
		}
		s.bytes += uint64(n)
		if errors.Is(err, io.EOF) {
			s.took = time.Since(s.begun)
			return nil
		}
		if err != nil {
			return fmt.Errorf("stream from %v: %w", s.from, err)
		}
	}
}

// finish stops the stream, reads its retransmissions, and waits until all data has arrived, without a
// limit on the rate.
func (s *stream) finish(deadline time.Time) error {
	s.stop.Store(true)
	err := control(s.sender, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			s.retransmissions = info.Total_retrans
		}
		return errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, math.MaxInt32))
	})
	return errors.Join(err, s.sender.SetDeadline(deadline), s.receiver.SetDeadline(deadline), s.work.Wait())
}

func (s *stream) result() Stream {
	return Stream{s.from, s.ipv6, s.bytes, s.retransmissions, float64(s.bytes) / s.took.Seconds()}
}

func (s *stream) close() {
	for _, c := range []*net.TCPConn{s.sender, s.receiver} {
		if c != nil {
			_ = c.Close()
		}
	}
}
