package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/confine"
	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/events"
	"fragwall/cmd/fragwall/internal/history"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/cmd/fragwall/internal/status"
	"fragwall/cmd/fragwall/internal/trace"
	"fragwall/rules"
)

// Options are the inputs of a daemon, and determine how it is controlled.
type Options struct {
	Startup *Startup
	Stderr  io.Writer // for the log and the counters
	Build   report.Build
	Kernel  *box.Kernel

	Socket      string // path of the control socket, "" for the default
	WatchConfig bool   // reload when a file of the configuration changes
	Replace     bool   // take over from the instance that runs with the same devices
	State       State  // where flows are saved between a stop and a start
	Standby     bool   // do not start if there is no instance to take over from
	// Confine drops the rights that a plan does not contain; see [confine.Apply].
	Confine func(confine.Plan, *slog.Logger)
	// Reload and Counters deliver SIGHUP and SIGUSR1. They are separate, so that neither
	// displaces the other.
	Reload, Counters <-chan os.Signal
}

// Attachment attaches a box to its traffic, beyond the NICs of its configuration.
type Attachment interface {
	// Attach is called once frames pass between the ports. It returns key-value pairs for the
	// log.
	Attach(*box.Box) (about []any, err error)
	// Follow tracks changes until ctx is done.
	Follow(ctx context.Context)
	// Prepare completes the setup of the box.
	Prepare(*box.Setup)
	// Adapt completes the watch of the box's devices.
	Adapt(*box.Watch)
	// Needs returns the rights that Follow and Detach need.
	Needs() confine.Plan
	// Detach undoes Attach, also if it failed.
	Detach() error
}

// Configured is the attachment of a box whose configuration names its NICs.
type Configured struct{ Config *rules.Config }

var _ Attachment = Configured{}

// Attach implements [Attachment]. It returns the names of the ports, which are joined already.
func (c Configured) Attach(*box.Box) ([]any, error) {
	return []any{"inside", c.Config.Inside.TAP, "outside", c.Config.Outside.TAP}, nil
}

// Follow implements [Attachment].
func (Configured) Follow(context.Context) {}

// Prepare implements [Attachment].
func (Configured) Prepare(*box.Setup) {}

// Adapt implements [Attachment].
func (Configured) Adapt(*box.Watch) {}

// Needs implements [Attachment].
func (Configured) Needs() confine.Plan { return confine.Plan{} }

// Detach implements [Attachment].
func (Configured) Detach() error { return nil }

// Daemon manages everything around a running box: the log and its events, signals, the control
// socket, the status server, and the service manager.
type Daemon struct {
	Options
	config *rules.Config // as loaded
	level  *slog.LevelVar
	log    *slog.Logger
	events *events.Recorder
	notify *notifier

	reloader   *reloader
	started    time.Time
	takeover   *report.Takeover // the last one, by this process or a previous one; nil if there was none
	forwarding atomic.Bool
	statusAt   string // address of the status server; or "none" and the reason; or "off"
	controlAt  string // path of the control socket; or "none" and the reason

	box     *box.Box
	restore func() // restores the scheduler
	flows   *flowKeeper
	hub     *trace.Hub     // serves captures
	helpers sync.WaitGroup // all goroutines that serve starts

	socket       *control.Listener             // nil if there is none
	listeners    []*pausable                   // of both sockets
	statusSocket net.Listener                  // nil if there is none
	status       atomic.Pointer[status.Server] // nil if there is none
	past         []history.Point               // from the process that this one took over from
	replaceable  bool                          // whether another process may take over
	handing      sync.Mutex                    // held while another process takes over, and once none may take over any more
	replaced     atomic.Bool                   // another process has taken over
	changing     sync.Mutex                    // held while the box is changed, and while the wire is held
	quit         context.CancelCauseFunc
}

// logTimeout is the maximum time for waiting for a log that accepts nothing.
const logTimeout = time.Second

// New returns a daemon without a box.
func New(o Options) *Daemon {
	claim()
	s := o.Startup
	o.Stderr = events.NewWriter(o.Stderr, logTimeout)
	level := new(slog.LevelVar)
	level.Set(s.config.Log.Level)
	handler := events.NewHandler(o.Stderr, s.config.Log.Format, level)
	d := &Daemon{
		Options: o, config: s.config, level: level, log: slog.New(handler),
		events: events.NewRecorder(handler, s.config.Log.Drops), started: time.Now(),
	}
	d.notify = openNotifier(d.log)
	d.reloader = &reloader{path: s.path, log: d.log, since: d.started, apply: d.apply, texts: s.texts, keeper: s.keeper, config: s.config}
	if s.broken != nil {
		s.warn(d.log)
		d.reloader.lastGood, d.reloader.mistake = true, firstLine(s.broken)
	}
	return d
}

// Log returns the log of the daemon.
func (d *Daemon) Log() *slog.Logger { return d.log }

// Run runs the box:
//
//  1. The devices are created and the saved flows are restored, or both are taken over from
//     another process.
//  2. The wire forwards between the devices.
//  3. The box and the fast path are attached.
//  4. Everything that controls and watches the box starts, rights are dropped, and the box is
//     ready.
//  5. Once ctx is done or the wire has failed, everything from step 4 ends.
//  6. The fast path is turned off and the box is detached, while the wire still forwards.
//  7. The wire ends, the devices are removed or bypassed, and the flows are saved for the next
//     start.
//  8. The last events and the counters are printed.
//
// If a step fails, the following ones up to 5 are skipped. If another process has taken over,
// the steps from 6 on do not change the devices. devices is the configuration that the devices
// are created from. It may differ from the one that was loaded.
func (d *Daemon) Run(ctx context.Context, devices *rules.Config, a Attachment) (err error) {
	setup := box.Setup{Config: devices, Log: d.log, Observer: d.events}
	a.Prepare(&setup)
	d.flows = openFlowKeeper(d.State, devices.Inside.TAP, devices.Outside.TAP, d.log)
	taken, err := d.open(ctx, setup)
	if err != nil {
		return err
	}
	if taken == nil {
		d.flows.restore(d.box)
	}
	_, d.replaceable = a.(Configured)
	d.hub = trace.NewHub(d.box.Bump, d.events, d.box.Watch)
	finish := func() {}
	defer func() {
		err = errors.Join(err, d.box.CloseAndBypass(devices))
		if !d.replaced.Load() {
			d.flows.save(d.box, setup.Sidecar || devices.OnExit == rules.ExitBypass)
		}
		finish()
	}()
	defer d.restore()

	forwarding, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.box.Run(forwarding) }()
	d.forwarding.Store(taken != nil) // after a take-over, frames flow without a break
	taken.running()

	about, err := a.Attach(d.box)
	if err == nil {
		d.box.AttachFastPath()
		finish = d.runEvents()
		err = d.serve(ctx, devices, a, about, ended, taken)
	}
	err = errors.Join(err, d.box.CloseFastPath(), a.Detach())
	stop()
	return errors.Join(err, <-ended)
}

// serve starts everything that controls and watches the box, and ends it once ctx is done or
// the wire has ended.
func (d *Daemon) serve(ctx context.Context, devices *rules.Config, a Attachment, about []any, ended chan error, taken *taker) (err error) {
	ctx, d.quit = context.WithCancelCause(ctx)
	defer d.handing.Lock() // a take-over has succeeded or failed by then
	limitMemory(d.box, d.config.Fragments.Memory)
	d.helpers.Go(func() { d.answer(ctx) })
	lister := listing.New(d.box.Bump) // one for all clients, because they share its pace
	d.openStatus(ctx, lister)
	d.openSocket(ctx, lister) // last: from then on, another process may take over
	if d.WatchConfig {
		d.watchConfig(ctx)
	}
	source := d.source()
	d.helpers.Go(func() { d.notify.watch(ctx, source.Alive) })
	d.helpers.Go(func() { a.Follow(ctx) })
	w := &box.Watch{Box: d.box, Events: d.events, Propagate: devices.OnLinkDown == rules.LinkPropagate}
	a.Adapt(w)
	d.helpers.Go(func() { w.Run(ctx) })
	d.confine(a.Needs())
	d.ready(append(about, "policy", d.config.Summary()))
	if taken != nil && taken.held.Reload {
		d.helpers.Go(func() { d.reload() })
	}
	select {
	case <-ctx.Done():
	case err = <-ended:
		ended <- nil
	}
	d.notReady()
	d.quit(nil)
	timeout := logTimeout
	if d.replaced.Load() {
		timeout += partingTimeout
	}
	within(timeout, d.helpers.Wait)
	return err
}

// partingTimeout is the maximum time that clients that sent a request before another process
// took over may take to read their answers.
const partingTimeout = 2 * time.Second

// notReady records that frames no longer flow, unless another process forwards them.
func (d *Daemon) notReady() { d.forwarding.Store(d.replaced.Load()) }

// runEvents starts the goroutine that writes events. finish writes the last events and the
// counters, as far as the log accepts them in time.
func (d *Daemon) runEvents() (finish func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	writing.Go(func() { d.events.Run(ctx) })
	return func() {
		within(logTimeout, func() {
			cancel()
			writing.Wait()
			if !d.replaced.Load() { // after a take-over, the other process continues the counters
				d.printCounters()
			}
		})
	}
}

// within waits for f to return, at most until a timeout.
func within(timeout time.Duration, f func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(timeout):
	}
}

// apply applies the part of a configuration that can change at run time.
func (d *Daemon) apply(next *rules.Config) {
	d.box.Reload(next.Policy)
	limitMemory(d.box, d.config.Fragments.Memory)
	d.level.Set(next.Log.Level)
	d.events.SetDrops(next.Log.Drops)
	d.box.SetDropEvents(next.Log.Drops)
}

// confine drops the rights of the process that it no longer needs, because all files and
// sockets are open. plan contains the rights that it needs in addition to those of every box.
func (d *Daemon) confine(plan confine.Plan) {
	plan.FastPath = d.box.FastPath().State == report.FastPathOn
	plan.Remove = append(plan.Remove, control.Directories()...)
	if d.Socket != "" {
		plan.Remove = append(plan.Remove, filepath.Dir(d.Socket))
	}
	if keeper := d.reloader.keeper; keeper != nil && keeper.store != nil {
		plan.Keep = append(plan.Keep, keeper.dir)
	}
	if d.flows != nil {
		plan.Keep = append(plan.Keep, d.flows.dir.Path())
	}
	for _, file := range d.reloader.files() {
		plan.Read = append(plan.Read, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			plan.Read = append(plan.Read, filepath.Dir(target))
		}
	}
	slices.Sort(plan.Read)
	plan.Read = slices.Compact(plan.Read)
	for _, dir := range plan.Read {
		if shared := filepath.Clean(dir); shared == "/" || shared == "/etc" {
			d.log.Warn("the process can still read every file in the directory of the configuration: give it a directory of its own", "directory", dir)
		}
	}
	d.Confine(plan, d.log)
}

// ready reports that frames flow, regardless of the log level.
func (d *Daemon) ready(about []any) {
	d.forwarding.Store(true)
	d.always().Info("ready", append(about, "status", d.statusAt, "socket", d.controlAt)...)
	d.notify.send(systemd.SdNotifyReady)
	d.helpers.Go(d.reloader.keepFirst)
}
