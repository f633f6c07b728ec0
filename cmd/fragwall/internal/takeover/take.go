package takeover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

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

// Taken is a take-over, until [Taken.Running].
type Taken struct {
	n     *conn
	alive int       // descriptor of the other process
	begin time.Time // latest time at which this process may begin to run
}

// errLate is the reason for which a process that has received everything does not run.
var errLate = errors.New("the take-over took too long")

// Take takes over from the process at the other end of a connection, which has received the
// request. It returns once the other process has stopped working. On an error, the other
// process continues or is dead.
func Take(ctx context.Context, c *net.UnixConn, t Taker) (*Taken, error) {
	n := newConn(ctx, c)
	n.takeFiles()
	stop := context.AfterFunc(ctx, n.end)
	taken := &Taken{n: n, alive: -1}
	err := taken.take(t)
	if !stop() && err != nil {
		err = ctx.Err()
	}
	if err != nil {
		taken.abort(err)
		return nil, err
	}
	n.ctx = context.Background()
	return taken, nil
}

func (k *Taken) take(t Taker) error {
	n := k.n
	n.wait(limits.Step, limits.Step)
	m, err := n.receive(kindOffer)
	if err != nil {
		return broken(err)
	}
	files, err := n.take(&m)
	if err != nil {
		return err
	}
	if k.alive, err = pidfd(&files); err != nil {
		return err
	}
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
	// The other process measures the same time, starting when it receives this message.
	n.wait(limits.Step, limits.Hold)
	k.begin = n.until.Add(-limits.Begin)
	if err := n.send(message{Kind: kindHold}, nil, nil); err != nil {
		return broken(err)
	}
	if m, err = n.receive(kindHeld); err != nil {
		return broken(err)
	}
	if err := n.receiveState(func(r io.Reader) error { return t.Restore(m.Body, r) }); err != nil {
		return broken(err)
	}
	return k.await()
}

// await waits until the other process has stopped working. This process has the whole state, so
// the death of the other one is equivalent.
func (k *Taken) await() error {
	n := k.n
	err := n.send(message{Kind: kindTake}, nil, nil)
	if err == nil {
		_, err = n.receive(kindGo)
	}
	if reason := new(said); err == nil || errors.As(err, &reason) {
		return err
	}
	if dead(k.alive) {
		k.begin = time.Time{} // no other process can continue
		return nil
	}
	return broken(err)
}

// Begin returns an error if so much time has passed that the other process will continue soon.
// This process must then not run.
func (k *Taken) Begin() error {
	if !k.begin.IsZero() && time.Now().After(k.begin) {
		k.abort(errLate)
		return errLate
	}
	return nil
}

// Running tells the other process that this one runs, whereupon the other one ends. An error
// means that the other process has not waited for this and continues. This process must then
// end.
func (k *Taken) Running() error {
	defer k.close()
	err := k.n.send(message{Kind: kindRunning}, nil, nil)
	if err == nil {
		if _, err = k.n.receive(); errors.Is(err, io.EOF) {
			return nil
		}
	}
	if dead(k.alive) {
		return nil
	}
	return fmt.Errorf("%w: the running instance goes on: %w", errLate, err)
}

// abort tells the other process that this one does not run, unless it knows, and closes the
// connection.
func (k *Taken) abort(err error) {
	k.n.quit(err)
	k.close()
}

func (k *Taken) close() {
	k.n.close()
	if k.alive >= 0 {
		_ = unix.Close(k.alive)
	}
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
