package takeover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Taker is the process that takes over.
type Taker interface {
	// Prepare gets what the other process offers, and owns the descriptors.
	Prepare(offer json.RawMessage, files []int) error
	// Copy reads what the other process's Copy writes.
	Copy(io.Reader) error
	// Restore gets what its Hold returned, and reads what its Save writes. The process is
	// then ready to run.
	Restore(held json.RawMessage, rest io.Reader) error
}

// Taken is a process that was taken over, up to [Taken.Running].
type Taken struct{ n *conn }

// Take takes over from the process at the other end of a connection, which has got the
// request. It returns once that does nothing any more. On an error the other goes on,
// or is dead.
func Take(ctx context.Context, c *net.UnixConn, t Taker) (*Taken, error) {
	n := newConn(ctx, c)
	n.takeFiles()
	stop := context.AfterFunc(ctx, n.end)
	err := take(n, t)
	if !stop() && err != nil {
		err = ctx.Err()
	}
	if err != nil {
		n.quit(err)
		n.close()
		return nil, err
	}
	n.ctx = context.Background()
	return &Taken{n}, nil
}

func take(n *conn, t Taker) error {
	n.wait(limits.Step)
	m, err := n.receive(kindOffer)
	if err != nil {
		return broken(err)
	}
	files, err := n.take(&m)
	if err != nil {
		return err
	}
	alive, err := pidfd(&files)
	if err != nil {
		return err
	}
	defer unix.Close(alive)
	if err := t.Prepare(m.Body, files); err != nil {
		return err
	}
	if err := n.send(message{Kind: kindCopy}, nil, nil); err != nil {
		return broken(err)
	}
	if err := n.receiveState(t.Copy); err != nil {
		return broken(err)
	}
	if err := n.send(message{Kind: kindHold}, nil, nil); err != nil {
		return broken(err)
	}
	if m, err = n.receive(kindHeld); err != nil {
		return broken(err)
	}
	if err := n.receiveState(func(r io.Reader) error { return t.Restore(m.Body, r) }); err != nil {
		return broken(err)
	}
	return await(n, alive)
}

// await waits until the other process does nothing any more. All that it had is here, so
// that its death is as good.
func await(n *conn, alive int) error {
	err := n.send(message{Kind: kindTake}, nil, nil)
	if err == nil {
		_, err = n.receive(kindGo)
	}
	if reason := new(said); err == nil || errors.As(err, &reason) {
		return err
	}
	if dead(alive) {
		return nil
	}
	return broken(err)
}

// Running tells the other process, which then ends, that this one runs.
func (t *Taken) Running() {
	_ = t.n.send(message{Kind: kindRunning}, nil, nil) // it is dead, or hears it
	t.n.close()
}

// pidfd takes the descriptor of the other process from those that came: the first.
func pidfd(files *[]int) (fd int, err error) {
	if len(*files) == 0 {
		return 0, errors.New("no process descriptor received")
	}
	fd = (*files)[0]
	*files = (*files)[1:]
	return fd, nil
}

// dead reports whether a process dies, which closes its connections first.
func dead(pidfd int) bool {
	fds := [...]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds[:], int(limits.Death.Milliseconds()))
		if err != unix.EINTR {
			return n == 1 && err == nil && fds[0].Revents&unix.POLLIN != 0
		}
	}
}

// broken says what it means that the other process closes the connection.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("the running instance aborted: it was killed, or is older than this one: %w", err)
	}
	return err
}
