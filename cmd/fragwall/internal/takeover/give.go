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

// Giver is the process that runs.
type Giver interface {
	// Offer returns what the other process needs to prepare itself: a value for JSON, and
	// descriptors, which are lent until Offered. An error refuses.
	Offer(request json.RawMessage) (offer any, files []int, err error)
	Offered()
	// Copy writes what is known so far, while the process goes on.
	Copy(io.Writer) error
	// Hold has the process stop, and returns a value for JSON.
	Hold(context.Context) (held any, err error)
	// Save writes what Copy has not.
	Save(io.Writer) error
	// Release ends what Copy and Hold began, also where these failed: the process goes on.
	Release()
	// Leave ends what Hold began: the other process runs.
	Leave()
}

// Limits are how long a process waits for the other.
type Limits struct {
	Prepare time.Duration // until the new one is prepared
	Copy    time.Duration // for all that the old one sends while it goes on
	Hold    time.Duration // from the hold until the new one runs
	Begin   time.Duration // of Hold, how much remains at least when the new one begins to run
	Step    time.Duration // for each chunk
	Death   time.Duration // until the old one is dead that closed the connection
}

// limits are those of this program.
var limits = Limits{
	Prepare: 20 * time.Second, Copy: time.Minute, Hold: 5 * time.Second, Begin: time.Second, Step: 5 * time.Second, Death: 2 * time.Second,
}

// errStopped is why a process that ends hands nothing over.
var errStopped = errors.New("the running instance is stopping")

// Give hands the process over to the one at the other end of a connection, which it
// closes. It returns nil once the other runs, and an error where this one goes on, as it
// does when ctx is done in time.
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

// give is [Give] on a connection, which stop has ctx leave alone unless it is done.
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
	n.close() // tells the other process that this one does not go on
	g.Leave()
	return nil
}

// hand is the part of [Give] from the first state on.
func hand(n *conn, stop func() bool, g Giver) error {
	n.wait(limits.Step, limits.Copy)
	if err := n.sendState(g.Copy); err != nil {
		return err
	}
	if _, err := n.receive(kindHold); err != nil {
		return err
	}
	// The process stands still from here on.
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
	// Nobody but the other process may end this from here on.
	n.ctx = context.Background()
	if err := n.send(message{Kind: kindGo}, nil, nil); err != nil {
		return err
	}
	_, err = n.receive(kindRunning)
	return err
}

// gone says what it means that the other process closes the connection.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the new process ended: %w", err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the new process took too long: %w", err)
	}
	return err
}
