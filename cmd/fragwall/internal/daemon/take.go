package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/cmd/fragwall/internal/takeover"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// open creates the box. If the options say so and an instance runs, it takes over its box
// instead. It then returns a taker, which must be told once the wire forwards.
func (d *Daemon) open(ctx context.Context, setup box.Setup) (*taker, error) {
	if d.Replace {
		switch t, err := d.takeOver(ctx, setup); {
		case t != nil || err != nil:
			return t, err
		}
		if d.Standby {
			return nil, errors.New("no instance runs with these devices; a standby has nothing to take over")
		}
		d.log.Info("no instance runs with these devices; starting without a take-over")
	}
	b, err := box.Open(d.Kernel, setup)
	if err != nil {
		return nil, err
	}
	d.use(b)
	return nil, nil
}

// use makes a box the daemon's box.
func (d *Daemon) use(b *box.Box) { d.box, d.restore = b, relax(b.Lanes()) }

// takeOver takes over from the running instance. It returns nil if there is none.
func (d *Daemon) takeOver(ctx context.Context, setup box.Setup) (*taker, error) {
	path, err := d.socketPath()
	if err != nil || !control.Listens(path) {
		return nil, err
	}
	namespace, err := networkNamespace()
	if err != nil {
		return nil, fmt.Errorf("find the network namespace: %w", err)
	}
	c, err := control.Instance{Socket: path}.Exchange(control.RequestReplace, request{
		Format: handedOver, Version: d.Build.Version, Namespace: namespace,
		Devices: [verdict.Sides]rules.Interface{verdict.Inside: setup.Config.Inside, verdict.Outside: setup.Config.Outside},
		Socket:  absolute(path), Status: d.config.Status.Listen, Read: d.Startup.read,
	})
	if err != nil {
		return nil, err
	}
	t := &taker{daemon: d, setup: setup, path: path}
	if err := takeover.Take(ctx, c, t); err != nil {
		return nil, errors.Join(fmt.Errorf("take over from the instance at %q: %w", path, err), t.close())
	}
	d.box.ContinueFastPath()
	return t, nil
}

// taker takes over a daemon.
type taker struct {
	daemon *Daemon
	setup  box.Setup
	path   string // path of the control socket
	offer  offer
	held   held
}

var _ takeover.Taker = (*taker)(nil)

// Prepare implements [takeover.Taker]. It creates the box on the ports of the other process.
func (t *taker) Prepare(about json.RawMessage, files []int) (err error) {
	f := descriptors(files)
	defer f.close()
	if err := json.Unmarshal(about, &t.offer); err != nil {
		return fmt.Errorf("not an offer: %w", err)
	}
	d, o := t.daemon, &t.offer
	d.past = o.Past
	for side := range o.Ports {
		if o.Ports[side].Files, err = f.take(o.Files[side]); err != nil {
			return err
		}
	}
	ports := o.Ports
	if err := t.takeSockets(&f); err != nil {
		return errors.Join(err, closeAll(ports[verdict.Inside].Files), closeAll(ports[verdict.Outside].Files))
	}
	if t.setup.FastPath = o.FastPath; o.FastPath != nil {
		o.FastPath.Files = f // the rest
	}
	b, err := box.Import(d.Kernel, t.setup, ports)
	if err == nil {
		d.use(b) // now, while the other process forwards
	}
	return err
}

// takeSockets takes over the sockets that the other process offers.
func (t *taker) takeSockets(f *descriptors) error {
	d := t.daemon
	if t.offer.Socket {
		fd, err := f.take(1)
		if err == nil {
			d.socket, err = control.Adopt(fd[0], t.path)
		}
		if err != nil {
			return err
		}
	}
	if !t.offer.Status {
		return nil
	}
	fd, err := f.take(1)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd[0]), "status")
	defer file.Close() // the listener has its own
	d.statusSocket, err = net.FileListener(file)
	return err
}

// Copy implements [takeover.Taker]. It restores the flows.
func (t *taker) Copy(r io.Reader) error { return t.daemon.box.Restore(r) }

// Restore implements [takeover.Taker]. It restores everything else, and takes over the devices.
func (t *taker) Restore(about json.RawMessage, r io.Reader) error {
	if err := json.Unmarshal(about, &t.held); err != nil {
		return fmt.Errorf("held fragments: %w", err)
	}
	if err := t.daemon.box.Restore(r); err != nil {
		return err
	}
	d, h := t.daemon, &t.held
	d.started = h.Started
	d.events.Restore(h.Events)
	d.reloader.goOn(h.Reloads, h.Failures)
	return d.box.Adopt(h.Ends)
}

// running logs that the wire forwards.
func (t *taker) running() {
	if t == nil {
		return
	}
	paused := monotonic() - t.held.Since
	t.daemon.takeover = &report.Takeover{Count: t.held.Takeovers + 1, Time: time.Now(), PauseSeconds: paused.Seconds()}
	t.daemon.always().Info("took over", "process", t.offer.Process, "version", t.offer.Version, "paused", paused.Round(time.Microsecond))
}

// close closes what was taken over, and leaves the devices to the other process.
func (t *taker) close() error {
	d := t.daemon
	var errs []error
	if d.socket != nil {
		errs = append(errs, d.socket.Close())
	}
	if d.statusSocket != nil {
		errs = append(errs, d.statusSocket.Close())
	}
	if d.box != nil {
		d.restore()
		d.box.Disown()
		errs = append(errs, d.box.Close())
	}
	return errors.Join(errs...)
}

// descriptors are received descriptors that were not taken yet.
type descriptors []int

func (f *descriptors) take(n int) ([]int, error) {
	if n < 0 || n > len(*f) {
		return nil, fmt.Errorf("descriptors: %d are left, want %d", len(*f), n)
	}
	taken := (*f)[:n:n]
	*f = (*f)[n:]
	return taken, nil
}

func (f *descriptors) close() { _ = closeAll(*f) }

func closeAll(files []int) error {
	var errs []error
	for _, fd := range files {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}
