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
	// Prepare gets what the other process offers, and owns the descriptors.
	Prepare(offer json.RawMessage, files []int) error
	// Copy reads what the other process's Copy writes.
	Copy(io.Reader) error
	// Restore gets what its Hold returned, and reads what its Save writes. The process is
	// then ready to run.
	Restore(held json.RawMessage, rest io.Reader) error
}

// Taken is a process that was taken over, up to [Taken.Running] or [Taken.Close].
type Taken struct {
	n     *conn
	alive int       // descriptor of the other process
	begin time.Time // until when this one may begin to run
}

// errLate is why a process does not run that got everything.
var errLate = errors.New("the take-over took too long")

// Take takes over from the process at the other end of a connection, which has got the
// request. It returns once that does nothing any more. On an error the other goes on,
// or is dead.
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
	// The other process measures the same time from when it gets this.
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

// await waits until the other process does nothing any more. All that it had is here, so
// that its death is as good.
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
		k.begin = time.Time{} // nobody else goes on
		return nil
	}
	return broken(err)
}

// Begin returns an error if so much time has passed that the other process soon goes on: this one
// must not run.
func (k *Taken) Begin() error {
	if !k.begin.IsZero() && time.Now().After(k.begin) {
		k.abort(errLate)
		return errLate
	}
	return nil
}

// Running tells the other process, which then ends, that this one runs. An error means that the
// other one has not waited for that, and goes on: this one must end.
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

// abort tells the other process, if it does not know, that this one does not run.
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

// pidfd takes the descriptor of the other process from those that came: the first.
func pidfd(files *[]int) (fd int, err error) {
	if len(*files) == 0 {
		return -1, errors.New("no process descriptor received")
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
