package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/confine"
	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/datapath"
	"fragwall/cmd/fragwall/internal/events"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/cmd/fragwall/internal/status"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// controls are the ways to have a running box read its rules again, besides
// SIGHUP.
type controls struct {
	socket string // "" for the default
	watch  bool
}

func controlFlags(c *cobra.Command) *controls {
	k := &controls{}
	c.Flags().StringVar(&k.socket, "socket", "", "control socket `path` for reload (default: made of the TAPs' names, in /run/fragwall for root)")
	c.Flags().BoolVar(&k.watch, "watch-config", false, "reload when the configuration, or a file of a set, changes")
	return k
}

// operator is what surrounds a running box: the log and its events, signals,
// the control socket, the status server, and the service manager.
type operator struct {
	config *rules.Config
	stderr io.Writer
	level  *slog.LevelVar
	log    *slog.Logger
	events *events.Recorder
	token  string // of the status server
	notify *notifier

	reloader *reloader
	tells    chan os.Signal // SIGUSR1
	reloads  chan os.Signal // SIGHUP; apart, so that neither takes the place of the other
	controls *controls
	started  time.Time
	flows    atomic.Bool // frames do
	served   string      // address of the status server; "none" and why, or "off"
	control  string      // path of the control socket, or "none" and why

	box     *box // nil before begin
	helpers sync.WaitGroup
	telling sync.WaitGroup // the events, to the end
	hush    context.CancelFunc
}

// newOperator returns an operator of a box that has yet to be made.
func newOperator(stderr io.Writer, path string, s *startup) *operator {
	config := s.config
	stderr = events.NewWriter(stderr, logPatience)
	level := new(slog.LevelVar)
	level.Set(config.Log.Level)
	handler := events.NewHandler(stderr, config.Log.Format, level)
	o := &operator{
		config: config, stderr: stderr, level: level, log: slog.New(handler), token: s.token,
		events: events.NewRecorder(handler, config.Log.Drops), started: time.Now(), hush: func() {},
	}
	debug.SetTraceback("crash") // a panic ends by a signal: exit code 2 is a wrong configuration's
	o.notify = openNotifier(o.log)
	o.tells, o.reloads = make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(o.tells, syscall.SIGUSR1)
	signal.Notify(o.reloads, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE) // a log that nobody reads any more
	o.reloader = &reloader{path: path, log: o.log, since: o.started, apply: o.apply, texts: s.texts, keeper: s.keeper, config: config}
	if s.broken != nil {
		s.warn(path, o.log)
		o.reloader.lastGood, o.reloader.mistake = true, firstLine(s.broken)
	}
	return o
}

// apply puts what may change of a configuration in force.
func (o *operator) apply(next *rules.Config) {
	o.box.Reload(next.Policy)
	limitMemory(o.box, o.config.Fragments.Memory)
	o.level.Set(next.Log.Level)
	o.events.SetDrops(next.Log.Drops)
}

// begin starts all that answers for a box, until ctx is done.
func (o *operator) begin(ctx context.Context, b *box, k *controls) {
	o.box, o.controls = b, k
	limitMemory(b, o.config.Fragments.Memory)
	telling, hush := context.WithCancel(context.Background())
	o.hush = hush
	o.telling.Go(func() { o.events.Run(telling) })

	o.helpers.Go(func() { o.answer(ctx) })
	o.openSocket(ctx, k.socket)
	o.openStatus(ctx)
	if k.watch {
		o.watchConfig(ctx)
	}
	o.helpers.Go(func() { o.notify.watch(ctx, o.source().Alive) })
}

// confine takes from the process what it does not need any more: all that is
// to be opened is open. The plan is of what it needs besides what every box
// does.
func (o *operator) confine(plan confine.Plan) {
	plan.Remove = append(plan.Remove, control.Directories()...)
	if o.controls.socket != "" {
		plan.Remove = append(plan.Remove, filepath.Dir(o.controls.socket))
	}
	if keeper := o.reloader.keeper; keeper != nil && keeper.store != nil {
		plan.Keep = append(plan.Keep, keeper.dir)
	}
	for _, file := range o.reloader.files() {
		plan.Read = append(plan.Read, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			plan.Read = append(plan.Read, filepath.Dir(target))
		}
	}
	slices.Sort(plan.Read)
	plan.Read = slices.Compact(plan.Read)
	for _, dir := range plan.Read {
		if shared := filepath.Clean(dir); shared == "/" || shared == "/etc" {
			o.log.Warn("all files beside the configuration stay readable to the process: give it a directory of its own", "directory", dir)
		}
	}
	confine.Apply(plan, o.log)
}

// ready says that frames flow, whatever the level of the log.
func (o *operator) ready(about ...any) {
	o.flows.Store(true)
	o.loud().Info("ready", append(about, "status", o.served, "socket", o.control)...)
	o.notify.tell(daemon.SdNotifyReady)
	o.helpers.Go(o.reloader.keepFirst)
}

// loud is the log without its level, for what was asked for.
func (o *operator) loud() *slog.Logger {
	return slog.New(events.NewHandler(o.stderr, o.config.Log.Format, slog.LevelInfo))
}

// tellCounters prints the counters: as text for people, or as the records that
// who reads the log expects.
func (o *operator) tellCounters() {
	if o.config.Log.Format == "json" {
		report.Of(o.box.Bump).LogCounters(o.loud())
		return
	}
	_ = report.Of(o.box.Bump).WriteCounters(o.stderr)
}

// logPatience is how long anyone waits for a log that takes nothing.
const logPatience = time.Second

// end waits for all that begin started, whose ctx is done, and prints the
// counters: as long as the log may take. Signals that come later find nobody,
// and end nothing.
func (o *operator) end() {
	o.flows.Store(false)
	told := make(chan struct{})
	go func() {
		defer close(told)
		o.helpers.Wait()
		o.hush()
		o.telling.Wait()
		if o.box != nil {
			o.tellCounters()
		}
	}()
	select {
	case <-told:
	case <-time.After(logPatience):
	}
}

// source is what the status server tells of.
func (o *operator) source() *report.Source {
	return &report.Source{
		Build:   versions(),
		Devices: [verdict.Sides]string{verdict.Inside: o.config.Inside.TAP, verdict.Outside: o.config.Outside.TAP},
		Mode:    o.config.Fragments.Mode,
		Limits:  datapath.Limits(&o.config.Fragments),
		Bump:    o.box.Bump,
		Events:  o.events,
		Started: o.started,
		Ready:   o.flows.Load,
		Links:   o.box.links,
		Missed:  o.box.missed,
		Policy:  o.reloader.policy,
	}
}

// openStatus serves the status. Where it can't be had, the wire is worth more
// than a look at it.
func (o *operator) openStatus(ctx context.Context) {
	address := o.config.Status.Listen
	if address == "" {
		o.served = "off"
		return
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		o.served = fmt.Sprintf("none: %v", err)
		o.log.Warn("no status server: set status.listen to an address that is free, or to \"\"", "error", err)
		return
	}
	o.served = address
	server := status.NewServer(o.source(), o.token)
	o.helpers.Go(func() {
		if err := server.Serve(ctx, l); err != nil {
			o.log.Error("the status server ended", "error", err)
		}
	})
}

// watchConfig reloads when the configuration, or a set's file, changes.
func (o *operator) watchConfig(ctx context.Context) {
	w, err := newWatcher(o.reloader.files)
	if err == nil {
		w.broken = o.reloader.policy().LastGood
		err = w.follow()
	}
	if err != nil {
		o.log.Warn("the configuration is not watched", "error", err)
		return
	}
	o.helpers.Go(func() { w.run(ctx, o.log, func() bool { return o.reload().Code == 0 }) })
}

// openSocket serves the control socket. Where it can't be had, SIGHUP still
// reloads.
func (o *operator) openSocket(ctx context.Context, path string) {
	var err error
	if path == "" {
		path, err = control.Path(o.config.Inside.TAP, o.config.Outside.TAP)
	}
	if err == nil {
		l, failed := control.Listen(path)
		if failed == nil {
			o.control = path
			answers := o.reloader.requests()
			answers[control.RequestReload] = func() any { return o.reload() } // which the service manager hears of, too
			source := o.source()
			answers[control.RequestStatus] = func() any { return source.Report(time.Now()) }
			o.helpers.Go(func() { l.Serve(ctx, answers) })
			return
		}
		err = failed
	}
	o.control = fmt.Sprintf("none: %v", err)
	o.log.Warn("no control socket: only SIGHUP reloads", "error", err)
}

// reload reads the rules again, and tells the service manager.
func (o *operator) reload() control.Outcome {
	o.notify.reloading()
	defer o.notify.tell(daemon.SdNotifyReady)
	return o.reloader.reload()
}

// answer prints the counters at SIGUSR1 and reloads at SIGHUP until ctx is
// done.
func (o *operator) answer(ctx context.Context) {
	for {
		select {
		case <-o.reloads:
			o.reload()
		case <-o.tells:
			o.tellCounters()
		case <-ctx.Done():
			o.flows.Store(false)
			o.notify.tell(daemon.SdNotifyStopping)
			if cause := context.Cause(ctx); cause != context.Canceled { // else the wire failed, and the error says why
				o.loud().Info("stopping", "cause", cause)
			}
			return
		}
	}
}
