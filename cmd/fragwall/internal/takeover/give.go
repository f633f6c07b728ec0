package takeover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Giver is the running process, from which another one takes over.
type Giver interface {
	// Offer returns what the other process needs to prepare itself: a value for JSON, and
	// descriptors, which are valid until Offered is called. An error refuses the take-over.
	Offer(request json.RawMessage) (offer any, files []int, err error)
	Offered()
	// Copy writes the state so far, while the process continues.
	Copy(io.Writer) error
	// Hold stops the process, and returns a value for JSON.
	Hold(context.Context) (held any, err error)
	// Save writes the state that Copy has not written.
	Save(io.Writer) error
	// Release undoes Copy and Hold, also if they failed. The process continues.
	Release()
	// Leave ends what Hold began: the other process runs now.
	Leave()
}

// Limits are the time limits for waiting for the other process.
type Limits struct {
	Prepare time.Duration // until the new process is prepared
	Copy    time.Duration // for everything that the old process sends while it continues
	Hold    time.Duration // from the hold until the new process is about to run
	Step    time.Duration // for each transmission
	Death   time.Duration // until the death of an old process that closed the connection is detected
}

// limits are the limits of this program.
var limits = Limits{
	Prepare: 20 * time.Second, Copy: time.Minute, Hold: 5 * time.Second, Step: 5 * time.Second, Death: 2 * time.Second,
}

// errStopped is the reason for which a process that ends refuses a take-over.
var errStopped = errors.New("the running instance is stopping")

// Give hands the process over to the one at the other end of a connection, and closes the
// connection. It returns nil once the other process runs, and an error if this process
// continues. It returns an error if ctx is done before the other process is told to go.
func Give(ctx context.Context, c *net.UnixConn, request json.RawMessage, g Giver) error {
	n := newConn(ctx, c)
	defer n.close()
	stop := context.AfterFunc(ctx, n.end)
	defer stop()
	err := give(n, stop, request, g)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = errStopped
	}
	stop()
	n.quit(err)
	return err
}

// give is [Give] on a connection. stop detaches the connection from ctx, unless ctx is done.
func give(n *conn, stop func() bool, request json.RawMessage, g Giver) error {
	n.wait(limits.Step, limits.Step)
	offer, files, err := g.Offer(request)
	if err == nil {
		err = n.send(message{Kind: kindOffer}, offer, files)
	}
	g.Offered()
	if err != nil {
		return err
	}
	n.wait(limits.Prepare, limits.Prepare)
	if _, err := n.receive(kindCopy); err != nil {
		return gone(err)
	}
	if err := hand(n, stop, g); err != nil {
		g.Release()
		return gone(err)
	}
	n.close() // tells the other process that this one does not continue
	g.Leave()
	return nil
}

// hand is the part of [Give] that follows the offer.
func hand(n *conn, stop func() bool, g Giver) error {
	n.wait(limits.Step, limits.Copy)
	if err := n.sendState(g.Copy); err != nil {
		return err
	}
	if _, err := n.receive(kindHold); err != nil {
		return err
	}
	// The process is held from here on.
	n.wait(limits.Step, limits.Hold)
	bounded, cancel := context.WithDeadline(n.ctx, n.until)
	defer cancel()
	held, err := g.Hold(bounded)
	if err != nil {
		return err
	}
	if err := n.send(message{Kind: kindHeld}, held, nil); err != nil {
		return err
	}
	if err := n.sendState(g.Save); err != nil {
		return err
	}
	if _, err := n.receive(kindTake); err != nil {
		return err
	}
	if !stop() {
		return errStopped
	}
	// From here on, only the other process may end the take-over.
	n.ctx = context.Background()
	if err := n.send(message{Kind: kindGo}, nil, nil); err != nil {
		return err
	}
	_, err = n.receive(kindRunning)
	return err
}

// gone adds the meaning of a closed connection or a timeout to an error.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the new process ended: %w", err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the new process took too long: %w", err)
	}
	return err
}
