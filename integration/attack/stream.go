package main

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// stream sends over one TCP connection as fast as possible until ctx is done, and returns
// the throughput in bits per second.
func stream(ctx context.Context, hosts [verdict.Sides]*lab.Host, ipv6 bool) (bits float64, err error) {
	listener, err := hosts[verdict.Outside].ListenTCP(ipv6, streamPort)
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	var came int64
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		c, err := listener.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })()
		came, err = io.Copy(io.Discard, c)
		return untilDone(ctx, err)
	})
	g.Go(func() error {
		to := netip.AddrPortFrom(hosts[verdict.Outside].Addr(ipv6), streamPort)
		c, err := hosts[verdict.Inside].DialTCP(to, connectTimeout)
		if err != nil {
			_ = listener.Close() // no connection will arrive
			return err
		}
		defer c.Close()
		defer context.AfterFunc(ctx, func() { _ = c.SetWriteDeadline(time.Now()) })()
		_, err = io.Copy(c, zeros{})
		// Data in the kernel's buffers must not outlive the trial.
		_ = c.(*net.TCPConn).SetLinger(0)
		return untilDone(ctx, err)
	})
	err = g.Wait()
	return float64(came) * 8 / time.Since(start).Seconds(), err
}

// connectTimeout is the time limit for a connection.
const connectTimeout = 5 * time.Second

// untilDone returns nil if ctx is done, because then the error comes from a deadline that stream set,
// and otherwise err.
func untilDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// zeros is an endless source of zero bytes.
type zeros struct{}

var _ io.Reader = zeros{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
