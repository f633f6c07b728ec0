package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/events"
	"fragwall/cmd/fragwall/internal/history"
	"fragwall/cmd/fragwall/internal/takeover"
	"fragwall/fastpath"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/wire"
)

// handedOver is the version of what one process hands over to another: of the messages
// here, and of what the wire saves. It changes where a field means something else, not
// where there are more or fewer of them.
const handedOver = 1

// request is what a process asks for that is to take over.
type request struct {
	Format    int                            `json:"format"` // of what is handed over
	Version   string                         `json:"version"`
	Namespace string                         `json:"namespace"` // of the network
	Devices   [verdict.Sides]rules.Interface `json:"devices"`
	Socket    string                         `json:"socket"` // path of its control socket
	Status    string                         `json:"status"` // address of its status server
	Read      time.Duration                  `json:"read"`   // when it read its configuration, by CLOCK_MONOTONIC
}

// offer is what it gets to prepare itself. Descriptors come in this order: of the
// process, of the ports, of the sockets that it offers, and of the fast path.
type offer struct {
	Version string                  `json:"version"`
	Process int                     `json:"process"`
	Ports   [verdict.Sides]box.Port `json:"ports"`
	Files   [verdict.Sides]int      `json:"files"` // of a port
	Socket  bool                    `json:"socket"`
	Status  bool                    `json:"status"`
	// FastPath is null if it is off, or if the process is of a version that does not hand it over.
	FastPath *fastpath.Exported `json:"fast_path"`
	Past     []history.Point    `json:"past"` // the oldest first
}

// held is what it gets while the process stands still.
type held struct {
	Ends    box.Ends      `json:"ends"`
	Since   time.Duration `json:"since"`   // when the wire was held, by CLOCK_MONOTONIC
	Started time.Time     `json:"started"` // when the first process was
	Events  events.Saved  `json:"events"`
	// Reloads and Failures are how many reloads succeeded, and did not.
	Reloads   int `json:"reloads"`
	Failures  int `json:"failures"`
	Takeovers int `json:"takeovers"` // so far
	// Reload means that the process was told to reload after the other one had read its
	// configuration, which may be the old one.
	Reload bool `json:"reload"`
}

// handOver answers a process that asks to take over, and has the daemon end where it
// does.
func (d *Daemon) handOver(ctx context.Context, argument json.RawMessage, c *net.UnixConn) {
	g := &giver{daemon: d, user: -1}
	if uid, err := control.Peer(c); err == nil {
		g.user = uid
	}
	locked := d.handing.TryLock()
	if locked {
		defer d.handing.Unlock()
	} else {
		g.refused = errors.New("another take-over is in progress")
	}
	if err := takeover.Give(ctx, c, argument, g); err != nil {
		if locked {
			d.setLeaving(false)
		}
		d.log.Warn("take-over by another process failed; this process continues", "version", g.version, "error", err)
		return
	}
	d.quit(errReplaced)
}

// setLeaving says whether another process is taking over.
func (d *Daemon) setLeaving(leaving bool) {
	if s := d.status.Load(); s != nil {
		s.SetLeaving(leaving)
	}
}

// errReplaced is why a process ends from which another one took over.
var errReplaced = errors.New("another process took over")

// giver hands a daemon over.
type giver struct {
	daemon  *Daemon
	user    int   // of the other process; -1 where that is not known
	refused error // nil where nothing is in the way
	version string
	read    time.Duration // see [request]
	own     []int         // descriptors that were made for the offer
	leaves  []func()      // has the sockets stay that were offered
	since   time.Time     // when the wire was held; zero before
}

var _ takeover.Giver = (*giver)(nil)

// Offer returns the ports, and the sockets that the other process has the same names for.
func (g *giver) Offer(argument json.RawMessage) (any, []int, error) {
	d := g.daemon
	var r request
	if err := json.Unmarshal(argument, &r); err != nil {
		return nil, nil, fmt.Errorf("not a take-over request: %w", err)
	}
	g.version, g.read = r.Version, r.Read
	if g.refused == nil {
		g.refused = g.check(&r)
	}
	if g.refused != nil {
		return nil, nil, g.refused
	}
	d.setLeaving(true)
	o := offer{Version: d.Build.Version, Process: os.Getpid()}
	var err error
	if o.Ports, o.FastPath, err = d.box.Export(); err != nil {
		return nil, nil, err
	}
	if o.FastPath != nil {
		g.own = append(g.own, o.FastPath.Files...)
	}
	if s := d.status.Load(); s != nil {
		o.Past = s.Past()
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a descriptor of the process: %w", err)
	}
	g.own = append(g.own, self)
	files := []int{self}
	for side := range o.Ports {
		o.Files[side] = len(o.Ports[side].Files)
		files = append(files, o.Ports[side].Files...)
	}
	if s := d.socket; s != nil && r.Socket == absolute(s.Path()) {
		o.Socket = true
		g.leaves = append(g.leaves, s.Leave)
		err = g.add(&files, s.Listener)
	}
	if l := d.statusSocket; l != nil && r.Status == d.config.Status.Listen && err == nil {
		o.Status = true
		err = g.add(&files, l)
	}
	if o.FastPath != nil {
		files = append(files, o.FastPath.Files...)
	}
	return o, files, err
}

// add adds the descriptor of a listener.
func (g *giver) add(files *[]int, l net.Listener) error {
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) {
		var own int
		if own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			g.own = append(g.own, own)
			*files = append(*files, own)
		}
	})
	return errors.Join(controlErr, err)
}

// check says what is in the way of a process that is to take over.
func (g *giver) check(r *request) error {
	d := g.daemon
	if r.Format != handedOver {
		return fmt.Errorf("it hands over format %d, but version %s needs format %d: stop it, then start the new one", handedOver, r.Version, r.Format)
	}
	if g.user != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, and only a process of this user may take over", os.Geteuid())
	}
	if !d.replaceable {
		return errors.New("a running sidecar cannot be replaced: stop it, then start the new one")
	}
	if namespace, err := networkNamespace(); err != nil || r.Namespace != namespace {
		return errors.New("it is in another network namespace")
	}
	next := *d.config
	next.Inside, next.Outside = r.Devices[verdict.Inside], r.Devices[verdict.Outside]
	if keys := d.config.Fixed(&next); len(keys) > 0 {
		return fmt.Errorf("its devices differ in %s: restore the configuration, or stop it and start the new one", strings.Join(keys, ", "))
	}
	return nil
}

// Offered closes what was made for the offer.
func (g *giver) Offered() {
	for _, fd := range g.own {
		_ = unix.Close(fd)
	}
	g.own = nil
}

// Copy writes all flows.
func (g *giver) Copy(w io.Writer) error { return g.daemon.box.Save(w, wire.AllFlows) }

// Hold stops the fast path, and then the wire. From here on, clients that connect wait: their
// answers must not be older than those of the other process.
func (g *giver) Hold(ctx context.Context) (any, error) {
	d := g.daemon
	d.changing.Lock()
	if err := ctx.Err(); err != nil {
		d.changing.Unlock()
		return nil, err
	}
	for _, l := range d.listeners {
		l.pause()
	}
	h := held{Ends: d.box.Suspend()}
	g.since = time.Now()
	h.Since = monotonic()
	err := d.box.Hold(ctx)
	h.Started, h.Events = d.started, d.events.Save()
	h.Reloads, h.Failures = d.reloader.counts()
	if d.takeover != nil {
		h.Takeovers = d.takeover.Count
	}
	h.Reload = d.reloader.reloadedSince(g.read)
	return h, err
}

// Save writes what Copy has not.
func (g *giver) Save(w io.Writer) error { return g.daemon.box.Save(w, wire.ChangedFlows|wire.Rest) }

// Release makes the process continue: first the fast path and the watch over the devices, if they
// were stopped, and then the wire.
func (g *giver) Release() {
	b := g.daemon.box
	held := !g.since.IsZero()
	if held {
		b.Resume()
	}
	b.Release()
	if held {
		for _, l := range g.daemon.listeners {
			l.resume()
		}
		g.daemon.changing.Unlock()
		g.daemon.log.Info("the wire continues", "paused", time.Since(g.since))
	}
}

// Leave leaves the devices and the sockets to the other process.
func (g *giver) Leave() {
	for _, leave := range g.leaves {
		leave()
	}
	g.daemon.replaced.Store(true)
	g.daemon.box.Leave()
	g.daemon.changing.Unlock()
}

// monotonic returns the time that all processes have in common.
func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // never fails
	return time.Duration(t.Nano())
}

// absolute returns a path as all processes name it.
func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

// networkNamespace names that of the calling thread.
func networkNamespace() (string, error) { return os.Readlink("/proc/thread-self/ns/net") }
