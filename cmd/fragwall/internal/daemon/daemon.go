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

// Options say what a daemon runs with, and how it is controlled.
type Options struct {
	Startup *Startup
	Stderr  io.Writer // of the log and the counters
	Build   report.Build
	Kernel  *box.Kernel

	Socket      string // path of the control socket, "" for the default
	WatchConfig bool   // reload when a file of the configuration changes
	Replace     bool   // take over from the instance that runs with the same devices
	State       State  // where flows are kept over a stop and a start
	Standby     bool   // and do nothing else where none runs
	// Confine gives up the rights that a plan leaves out; see [confine.Apply].
	Confine func(confine.Plan, *slog.Logger)
	// Reload and Counters deliver SIGHUP and SIGUSR1, apart, so that neither takes
	// the place of the other.
	Reload, Counters <-chan os.Signal
}

// Attachment is what puts a box where its traffic is, beside the NICs of its
// configuration.
type Attachment interface {
	// Attach is called when frames pass between the ports. It returns what the log
	// says of it, as pairs.
	Attach(*box.Box) (about []any, err error)
	// Follow keeps up with changes until ctx is done.
	Follow(ctx context.Context)
	// Prepare completes what the box is made of.
	Prepare(*box.Setup)
	// Adapt completes the watch over the box's devices.
	Adapt(*box.Watch)
	// Needs is what Follow and Detach need of the process's rights.
	Needs() confine.Plan
	// Detach undoes Attach, also one that failed.
	Detach() error
}

// Configured is the attachment of a box whose configuration names its NICs.
type Configured struct{ Config *rules.Config }

var _ Attachment = Configured{}

// Attach returns the names of the ports, which are joined already.
func (c Configured) Attach(*box.Box) ([]any, error) {
	return []any{"inside", c.Config.Inside.TAP, "outside", c.Config.Outside.TAP}, nil
}

// Follow has nothing to follow.
func (Configured) Follow(context.Context) {}

// Prepare leaves it as it is.
func (Configured) Prepare(*box.Setup) {}

// Adapt leaves the watch as it is.
func (Configured) Adapt(*box.Watch) {}

// Needs is nothing.
func (Configured) Needs() confine.Plan { return confine.Plan{} }

// Detach has nothing to undo.
func (Configured) Detach() error { return nil }

// Daemon is what surrounds a running box: the log and its events, signals, the
// control socket, the status server, and the service manager.
type Daemon struct {
	Options
	config *rules.Config // as it was loaded
	level  *slog.LevelVar
	log    *slog.Logger
	events *events.Recorder
	notify *notifier

	reloader   *reloader
	started    time.Time
	takeover   *report.Takeover // by this process or one before; nil where none took over
	forwarding atomic.Bool
	statusAt   string // address of the status server; "none" and why, or "off"
	controlAt  string // path of the control socket, or "none" and why

	box     *box.Box
	restore func() // sets the scheduler back
	flows   *flowKeeper
	hub     *trace.Hub     // of who captures
	helpers sync.WaitGroup // all that serve starts

	socket       *control.Listener             // nil where there is none
	listeners    []*pausable                   // of both sockets
	statusSocket net.Listener                  // nil where there is none
	status       atomic.Pointer[status.Server] // likewise
	past         []history.Point               // of the process that this one took over from
	replaceable  bool                          // by another process
	handing      sync.Mutex                    // held while another process takes over, and once none may any more
	replaced     atomic.Bool                   // one did
	changing     sync.Mutex                    // held while something changes the box, and while the wire is held
	quit         context.CancelCauseFunc
}

// logTimeout is how long anyone waits for a log that takes nothing.
const logTimeout = time.Second

// New returns a daemon whose box has yet to be made.
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

// Log returns the daemon's log.
func (d *Daemon) Log() *slog.Logger { return d.log }

// Run is the life of a box:
//
//  1. The devices are made, and the flows that were kept are read; or both are taken over
//     from the process that has them.
//  2. The wire forwards between them.
//  3. The box is attached, and the fast path to it.
//  4. What controls and watches it starts, rights are given up, the box is ready.
//  5. Once ctx is done or the wire failed, what 4 started ends.
//  6. The fast path ends, and the box is detached, while the wire still forwards.
//  7. The wire ends, the devices are removed, or bypassed, and the flows are kept for the
//     next start.
//  8. The last events and the counters are printed.
//
// What fails leaves out the steps up to 6. Where another process took over, those from 6
// on leave the devices as they are. The devices are made by a configuration
// that may differ from the one that was loaded.
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
	if err := taken.begin(); err != nil {
		return err
	}
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
	d.forwarding.Store(taken != nil) // as it has without a break
	if err := taken.running(); err != nil {
		stop()
		return errors.Join(err, <-ended)
	}

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

// serve starts what controls and watches the box, and ends it once ctx is done or
// the wire has ended.
func (d *Daemon) serve(ctx context.Context, devices *rules.Config, a Attachment, about []any, ended chan error, taken *taker) (err error) {
	ctx, d.quit = context.WithCancelCause(ctx)
	defer d.handing.Lock() // whoever takes over has or has not by then
	limitMemory(d.box, d.config.Fragments.Memory)
	d.helpers.Go(func() { d.answer(ctx) })
	lister := listing.New(d.box.Bump) // of all clients, so that they share its pace
	d.openStatus(ctx, lister)
	d.openSocket(ctx, lister) // last: another process may take over from then on
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

// partingTimeout is how long clients that asked before another process took over may take to
// read their answers.
const partingTimeout = 2 * time.Second

// notReady says that no frames flow any more, unless another process forwards them.
func (d *Daemon) notReady() { d.forwarding.Store(d.replaced.Load()) }

// runEvents starts what writes events. finish writes the last ones and the counters,
// as far as the log takes them in time.
func (d *Daemon) runEvents() (finish func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	writing.Go(func() { d.events.Run(ctx) })
	return func() {
		within(logTimeout, func() {
			cancel()
			writing.Wait()
			if !d.replaced.Load() { // else they go on
				d.printCounters()
			}
		})
	}
}

// within waits for f to return, but no longer than a timeout.
func within(timeout time.Duration, f func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(timeout):
	}
}

// apply puts what may change of a configuration in force.
func (d *Daemon) apply(next *rules.Config) {
	d.box.Reload(next.Policy)
	limitMemory(d.box, d.config.Fragments.Memory)
	d.level.Set(next.Log.Level)
	d.events.SetDrops(next.Log.Drops)
	d.box.SetDropEvents(next.Log.Drops)
}

// confine takes from the process what it does not need any more: all that is
// to be opened is open. The plan is of what it needs besides what every box
// does.
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

// ready says that frames flow, whatever the level of the log.
func (d *Daemon) ready(about []any) {
	d.forwarding.Store(true)
	d.always().Info("ready", append(about, "status", d.statusAt, "socket", d.controlAt)...)
	d.notify.send(systemd.SdNotifyReady)
	d.helpers.Go(d.reloader.keepFirst)
}
