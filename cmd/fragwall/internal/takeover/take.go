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
	// Prepare receives the offer of the other process. It owns the descriptors.
	Prepare(offer json.RawMessage, files []int) error
	// Copy reads what Copy of the other process writes.
	Copy(io.Reader) error
	// Restore receives what Hold of the other process returned, and reads what Save writes.
	// Afterwards, the process is ready to run.
	Restore(held json.RawMessage, rest io.Reader) error
}

// errLate is the reason for which a process that has received everything does not run.
var errLate = errors.New("the take-over took too long")

// Take takes over from the process at the other end of a connection, which has received the
// request, and closes the connection. It returns nil once the other process has stopped working:
// this process must run. On an error, the other process continues or is dead.
func Take(ctx context.Context, c *net.UnixConn, t Taker) error {
	n := newConn(ctx, c)
	defer n.close()
	n.takeFiles()
	stop := context.AfterFunc(ctx, n.end)
	defer stop()
	err := take(n, stop, t)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	stop()
	n.quit(err)
	return err
}

// take implements [Take]. After a call of stop, ctx no longer affects the connection.
func take(n *conn, stop func() bool, t Taker) error {
	n.wait(limits.Step, limits.Step)
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
	n.wait(limits.Step, limits.Copy)
	if err := n.send(message{Kind: kindCopy}, nil, nil); err != nil {
		return broken(err)
	}
	if err := n.receiveState(t.Copy); err != nil {
		return broken(err)
	}
	n.wait(limits.Step, limits.Hold)
	if err := n.send(message{Kind: kindHold}, nil, nil); err != nil {
		return broken(err)
	}
	if m, err = n.receive(kindHeld); err != nil {
		return broken(err)
	}
	if err := n.receiveState(func(r io.Reader) error { return t.Restore(m.Body, r) }); err != nil {
		return broken(err)
	}
	return finish(n, stop, alive)
}

// finish returns nil once the other process has stopped working. This process has the whole state,
// so the death of the other one is equivalent.
func finish(n *conn, stop func() bool, alive int) error {
	err := n.send(message{Kind: kindTake}, nil, nil)
	if err == nil {
		_, err = n.receive(kindGo)
	}
	if !stop() {
		return context.Canceled
	}
	n.ctx = context.Background()
	if err == nil {
		// From here on, the other process decides. It may be stopped (SIGSTOP).
		n.waitForever()
		if err = n.send(message{Kind: kindRunning}, nil, nil); err == nil {
			_, err = n.receive()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
	isDead := dead(alive)
	if reason := n.parting(err); reason != nil { // a process that continued may have ended since
		return fmt.Errorf("%w: %w", errLate, reason)
	}
	if isDead {
		return nil
	}
	return broken(err)
}

// pidfd takes the descriptor of the other process, which is the first of the received ones.
func pidfd(files *[]int) (fd int, err error) {
	if len(*files) == 0 {
		return -1, errors.New("no process descriptor received")
	}
	fd = (*files)[0]
	*files = (*files)[1:]
	return fd, nil
}

// dead reports whether a process is dead. It waits for a short time, because a dying process
// closes its connections before it counts as dead.
func dead(pidfd int) bool {
	fds := [...]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds[:], int(limits.Death.Milliseconds()))
		if err != unix.EINTR {
			return n == 1 && err == nil && fds[0].Revents&unix.POLLIN != 0
		}
	}
}

// broken adds the meaning of a closed connection to an error.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("the running instance aborted: it was killed, or is older than this one: %w", err)
	}
	return err
}
