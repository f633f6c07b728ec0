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

// handedOver is the version of the format that one process hands over to another: of the
// messages in this file, and of the state that the wire saves. It changes if the meaning of a
// field changes, but not if a field is added or removed.
const handedOver = 1

// request is the request of a process that wants to take over.
type request struct {
	Format    int                            `json:"format"` // version of the format
	Version   string                         `json:"version"`
	Namespace string                         `json:"namespace"` // network namespace
	Devices   [verdict.Sides]rules.Interface `json:"devices"`
	Socket    string                         `json:"socket"` // path of its control socket
	Status    string                         `json:"status"` // address of its status server
	Read      time.Duration                  `json:"read"`   // when it read its configuration, by CLOCK_MONOTONIC
}

// offer is what the other process needs to prepare itself. The descriptors are, in this order,
// those of the process, the ports, the offered sockets, and the fast path.
type offer struct {
	Version string                  `json:"version"`
	Process int                     `json:"process"`
	Ports   [verdict.Sides]box.Port `json:"ports"`
	Files   [verdict.Sides]int      `json:"files"` // number of descriptors of a port
	Socket  bool                    `json:"socket"`
	Status  bool                    `json:"status"`
	// FastPath is null if the fast path is off, or if the version of the process does not hand
	// it over.
	FastPath *fastpath.Exported `json:"fast_path"`
	Past     []history.Point    `json:"past"` // oldest first
}

// held is what the other process receives while the wire is held.
type held struct {
	Ends    box.Ends      `json:"ends"`
	Since   time.Duration `json:"since"`   // when the wire was held, by CLOCK_MONOTONIC
	Started time.Time     `json:"started"` // start of the first process
	Events  events.Saved  `json:"events"`
	// Reloads and Failures are the numbers of successful and of failed reloads.
	Reloads   int `json:"reloads"`
	Failures  int `json:"failures"`
	Takeovers int `json:"takeovers"` // number of take-overs so far
	// Reload means that the process was told to reload after the other one had read its
	// configuration, which may therefore be outdated.
	Reload bool `json:"reload"`
}

// handOver serves a process that wants to take over, and ends the daemon if the take-over
// succeeds.
func (d *Daemon) handOver(ctx context.Context, argument json.RawMessage, c *net.UnixConn) {
	g := &giver{daemon: d, user: -1}
	if uid, err := control.Peer(c); err == nil {
		g.user = uid
	}
	if err := d.give(ctx, argument, c, g); err != nil {
		// Another process can take over from now on.
		d.log.Warn("take-over by another process failed; this process continues", "version", g.version, "error", err)
	}
}

// give hands over the daemon to one process at a time, and ends it if that succeeds.
func (d *Daemon) give(ctx context.Context, argument json.RawMessage, c *net.UnixConn, g *giver) error {
	if !d.handing.TryLock() {
		g.refused = errors.New("another take-over is in progress")
		return takeover.Give(ctx, c, argument, g)
	}
	defer d.handing.Unlock()
	if err := takeover.Give(ctx, c, argument, g); err != nil {
		d.setLeaving(false)
		return err
	}
	d.quit(errReplaced)
	return nil
}

// setLeaving says whether another process is taking over.
func (d *Daemon) setLeaving(leaving bool) {
	if s := d.status.Load(); s != nil {
		s.SetLeaving(leaving)
	}
}

// errReplaced is the reason for which a process ends after another one took over.
var errReplaced = errors.New("another process took over")

// giver hands over a daemon.
type giver struct {
	daemon  *Daemon
	user    int   // user ID of the other process; -1 if it is not known
	refused error // why the take-over is refused; nil if it is not
	version string
	read    time.Duration // see [request]
	own     []int         // descriptors that were opened for the offer
	leaves  []func()      // make the offered sockets stay
	since   time.Time     // when the wire was held; zero before
}

var _ takeover.Giver = (*giver)(nil)

// Offer implements [takeover.Giver]. It offers the ports, and the sockets for which the other
// process has the same names.
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

// add appends a descriptor of a listener.
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

// check returns the reason for which a process may not take over, or nil.
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

// Offered implements [takeover.Giver]. It closes what was opened for the offer.
func (g *giver) Offered() {
	for _, fd := range g.own {
		_ = unix.Close(fd)
	}
	g.own = nil
}

// Copy implements [takeover.Giver]. It writes all flows.
func (g *giver) Copy(w io.Writer) error { return g.daemon.box.Save(w, wire.AllFlows) }

// Hold implements [takeover.Giver]. It stops the fast path and then the wire. From then on, new
// clients wait, because answers of this process must not be older than those of the other one.
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

// Save implements [takeover.Giver]. It writes what Copy has not written.
func (g *giver) Save(w io.Writer) error { return g.daemon.box.Save(w, wire.ChangedFlows|wire.Rest) }

// Release implements [takeover.Giver]. The process continues: first the fast path and the watch
// of the devices, if they were stopped, and then the wire.
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
		b.AttachFastPath()
	}
}

// Leave implements [takeover.Giver]. It leaves the devices and the sockets to the other
// process.
func (g *giver) Leave() {
	for _, leave := range g.leaves {
		leave()
	}
	g.daemon.replaced.Store(true)
	g.daemon.box.Leave()
	g.daemon.changing.Unlock()
}

// monotonic returns the time of a clock that all processes share.
func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // never fails
	return time.Duration(t.Nano())
}

// absolute returns the absolute form of a path.
func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

// networkNamespace returns the name of the calling thread's network namespace.
func networkNamespace() (string, error) { return os.Readlink("/proc/thread-self/ns/net") }
