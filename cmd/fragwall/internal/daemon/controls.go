package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/datapath"
	"fragwall/cmd/fragwall/internal/events"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/inspect"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/cmd/fragwall/internal/status"
	"fragwall/cmd/fragwall/internal/trace"
	"fragwall/packet/verdict"
)

// always returns the log without its level, for messages that the user asked for.
func (d *Daemon) always() *slog.Logger {
	return slog.New(events.NewHandler(d.Stderr, d.config.Log.Format, slog.LevelInfo))
}

// printCounters prints the counters, as text or, if the log is JSON, as log records.
func (d *Daemon) printCounters() {
	r := report.Of(d.box.Bump)
	if d.config.Log.Format == "json" {
		r.LogCounters(d.always())
		return
	}
	_ = r.WriteCounters(d.Stderr)
}

// source returns the source of reports.
func (d *Daemon) source() *report.Source {
	return &report.Source{
		Build:    d.Build,
		Devices:  [verdict.Sides]string{verdict.Inside: d.config.Inside.TAP, verdict.Outside: d.config.Outside.TAP},
		Mode:     d.config.Fragments.Mode,
		Limits:   datapath.Limits(&d.config.Fragments),
		Bump:     d.box.Bump,
		Events:   d.events,
		Started:  d.started,
		Takeover: d.takeover,
		Ready:    d.forwarding.Load,
		Links:    d.box.Links,
		Missed:   d.box.Missed,
		FastPath: d.box.FastPath,
		Policy:   d.reloader.policy,
	}
}

// openStatus starts the status server. Without it, the box runs nevertheless.
func (d *Daemon) openStatus(ctx context.Context, lister *listing.Lister) {
	address := d.config.Status.Listen
	if address == "" {
		d.statusAt = "off"
		return
	}
	err := d.listenForStatus(address)
	if err != nil {
		d.statusAt = fmt.Sprintf("none: %v", err)
		d.log.Warn("no status server: set status.listen to a free address, or to \"\"", "error", err)
		return
	}
	d.statusAt = address
	server := status.NewServer(d.source(), lister, d.Startup.token)
	server.Restore(d.past)
	d.status.Store(server)
	d.helpers.Go(func() {
		if err := server.Serve(ctx, d.statusSocket); err != nil {
			d.log.Error("the status server ended", "error", err)
		}
	})
}

// listenForStatus opens the socket of the status server, unless it was taken over.
func (d *Daemon) listenForStatus(address string) (err error) {
	if d.statusSocket == nil {
		d.statusSocket, err = net.Listen("tcp", address)
	}
	if err == nil {
		d.statusSocket = d.pausable(d.statusSocket)
	}
	return err
}

// pausable returns a listener that is paused while another process takes over.
func (d *Daemon) pausable(l net.Listener) net.Listener {
	p := newPausable(l)
	d.listeners = append(d.listeners, p)
	return p
}

// watchConfig starts the watcher, which reloads when the configuration or the file of a set
// changes.
func (d *Daemon) watchConfig(ctx context.Context) {
	w, err := newWatcher(d.reloader.files)
	if err == nil {
		w.broken = d.reloader.policy().LastGood
		err = w.follow()
	}
	if err != nil {
		d.log.Warn("cannot watch the configuration", "error", err)
		return
	}
	d.helpers.Go(func() { w.run(ctx, d.log, func() bool { return d.reload().Code == 0 }) })
}

// openSocket starts to serve the control socket. Without it, SIGHUP still reloads.
func (d *Daemon) openSocket(ctx context.Context, lister *listing.Lister) {
	if err := d.listen(); err != nil {
		d.controlAt = fmt.Sprintf("none: %v", err)
		d.log.Warn("no control socket: reload with SIGHUP", "error", err)
		return
	}
	l := d.socket
	l.Listener = d.pausable(l.Listener)
	d.controlAt = l.Path()
	source := d.source()
	streams := inspect.Streams(inspect.Box{Lister: lister, Bump: d.box.Bump, Config: d.reloader.inForce, Log: d.log, Change: d.change})
	streams[control.RequestCapture] = func(client context.Context, argument json.RawMessage, to *control.Stream) error {
		return d.capture(ctx, client, argument, to)
	}
	d.helpers.Go(func() {
		l.Serve(ctx, control.Service{
			Handlers: control.Handlers{
				control.RequestReload: func() any { return d.reload() },
				control.RequestFile:   func() any { return d.reloader.file() },
				control.RequestStatus: func() any { return source.Report(time.Now()) },
			},
			Streams:   streams,
			Exchanges: control.Exchanges{control.RequestReplace: d.handOver},
		})
	})
}

// capture sends a client the frames that it requests, until the client or ctx is done.
func (d *Daemon) capture(ctx, client context.Context, argument json.RawMessage, to *control.Stream) error {
	var request trace.Request
	if err := json.Unmarshal(argument, &request); err != nil {
		return exit.Usagef("capture: %w", err)
	}
	client, end := context.WithCancel(client)
	defer end()
	defer context.AfterFunc(ctx, end)()
	err := d.hub.Serve(client, &request, to)
	if ctx.Err() != nil && d.replaced.Load() {
		return control.ErrReplaced
	}
	return err
}

// listen opens the control socket, unless it was taken over.
func (d *Daemon) listen() error {
	if d.socket != nil {
		return nil
	}
	path, err := d.socketPath()
	if err == nil {
		d.socket, err = control.Listen(path)
	}
	return err
}

// socketPath returns the path of the control socket.
func (d *Daemon) socketPath() (string, error) {
	if d.Socket != "" {
		return d.Socket, nil
	}
	return control.Path(d.config.Inside.TAP, d.config.Outside.TAP)
}

// reload reads the rules again. It tells the service manager about the reload.
func (d *Daemon) reload() (o control.Outcome) {
	err := d.change(func() error {
		d.notify.reloading()
		defer d.notify.send(systemd.SdNotifyReady)
		o = d.reloader.reload()
		return nil
	})
	if err != nil {
		d.log.Warn("not reloaded", "error", err)
		return control.Replaced()
	}
	return o
}

// change runs a function that changes the box. It waits while the wire is held, and fails once
// another process owns the box.
func (d *Daemon) change(change func() error) error {
	d.changing.Lock()
	defer d.changing.Unlock()
	if d.replaced.Load() {
		return control.ErrReplaced
	}
	return change()
}

// answer prints the counters on SIGUSR1 and reloads on SIGHUP, until ctx is done.
func (d *Daemon) answer(ctx context.Context) {
	for {
		select {
		case <-d.Reload:
			d.reload()
		case <-d.Counters:
			d.printCounters()
		case <-ctx.Done():
			d.notReady()
			d.notify.send(systemd.SdNotifyStopping)
			if cause := context.Cause(ctx); cause != context.Canceled { // if the wire failed, the error gives the reason
				d.always().Info("stopping", "cause", cause)
			}
			return
		}
	}
}
