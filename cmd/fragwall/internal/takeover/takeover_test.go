package takeover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns the two ends of a connection.
func pair(t *testing.T) (old, next *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "")
		c, err := net.FileConn(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { _ = c.Close() })
	}
	return ends[0], ends[1]
}

// process returns a descriptor of a process that is dead, or of this process.
func process(t *testing.T, alive bool) int {
	t.Helper()
	pid := os.Getpid()
	var c *exec.Cmd
	if !alive {
		c = exec.Command("true")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		pid = c.Process.Pid
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c != nil {
		_ = c.Wait()
	}
	return fd
}

// steps records calls, and calls a function at each step.
type steps struct {
	before map[string]func() error // functions by step

	mu    sync.Mutex
	calls []string
}

func (s *steps) do(step string) error {
	s.mu.Lock()
	s.calls = append(s.calls, step)
	s.mu.Unlock()
	if f := s.before[step]; f != nil {
		return f()
	}
	return nil
}

// was returns the recorded calls.
func (s *steps) was() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.calls, " ")
}

// giver hands over a number of descriptors and two states.
type giver struct {
	steps
	files []int
	size  int // size of each state in bytes
}

// newGiver returns a giver with a number of descriptors in addition to that of the process.
func newGiver(t *testing.T, process, files, size int) *giver {
	t.Helper()
	g := &giver{files: []int{process}, size: size}
	for i := range files {
		fd, err := unix.MemfdCreate("", unix.MFD_CLOEXEC)
		if err == nil {
			_, err = unix.Write(fd, []byte(fmt.Sprint(i)))
		}
		if err != nil {
			t.Fatal(err)
		}
		g.files = append(g.files, fd)
	}
	return g
}

func (g *giver) Offer(request json.RawMessage) (any, []int, error) {
	return string(request), g.files, g.do("offer")
}

func (g *giver) Offered() {
	for _, fd := range g.files {
		_ = unix.Close(fd)
	}
}

func (g *giver) Copy(w io.Writer) error { return g.write(w, "copy") }

func (g *giver) Save(w io.Writer) error { return g.write(w, "save") }

func (g *giver) write(w io.Writer, step string) error {
	if _, err := w.Write(bytes.Repeat([]byte(step[:1]), g.size)); err != nil {
		return err
	}
	return g.do(step)
}

func (g *giver) Hold(context.Context) (any, error) { return "held", g.do("hold") }

func (g *giver) Release() { _ = g.do("release") }

func (g *giver) Leave() { _ = g.do("leave") }

// taker checks what it receives.
type taker struct {
	steps
	t     *testing.T
	files int
	size  int
}

func (k *taker) Prepare(offer json.RawMessage, files []int) error {
	if string(offer) != `"\"request\""` || len(files) != k.files {
		k.t.Errorf("offered %s with %d descriptors", offer, len(files))
	}
	for i, fd := range files {
		var b [8]byte
		n, err := unix.Pread(fd, b[:], 0)
		if err != nil || string(b[:n]) != fmt.Sprint(i) {
			k.t.Errorf("descriptor %d has %q: %v", i, b[:n], err)
		}
		_ = unix.Close(fd)
	}
	return k.do("prepare")
}

func (k *taker) Copy(r io.Reader) error { return k.read(r, "copy") }

func (k *taker) Restore(held json.RawMessage, r io.Reader) error {
	if string(held) != `"held"` {
		k.t.Errorf("held: %s", held)
	}
	return k.read(r, "save")
}

func (k *taker) read(r io.Reader, step string) error {
	b, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(b, bytes.Repeat([]byte(step[:1]), k.size)) {
		k.t.Errorf("%s: %d bytes, want %d", step, len(b), k.size)
	}
	return errors.Join(err, k.do(step))
}

// trial is a take-over.
type trial struct {
	*giver
	*taker
	old, next *net.UnixConn

	ended context.CancelFunc // ends the context of the old process
}

func newTrial(t *testing.T, alive bool) *trial {
	t.Helper()
	const files, size = 3, 100_000
	r := &trial{giver: newGiver(t, process(t, alive), files, size), taker: &taker{t: t, files: files, size: size}}
	r.giver.before, r.taker.before = map[string]func() error{}, map[string]func() error{}
	r.old, r.next = pair(t)
	return r
}

// run returns the results of both ends.
func (r *trial) run(t *testing.T) (given, taken error) {
	t.Helper()
	before := descriptors(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.ended = cancel
	giving := make(chan error, 1)
	go func() { giving <- Give(ctx, r.old, json.RawMessage(`"request"`), r.giver) }()
	taken = Take(t.Context(), r.next, r.taker)
	given = <-giving
	// Both connections and the descriptors of the giver.
	if after := descriptors(t); after != before-2-len(r.giver.files) {
		t.Errorf("%d descriptors, want %d", after, before-2-len(r.giver.files))
	}
	return given, taken
}

// giveAll does what the old process does until it receives "take".
func (r *trial) giveAll(n *conn) error {
	n.wait(time.Minute, time.Minute)
	if err := n.send(message{Kind: kindOffer}, `"request"`, r.giver.files); err != nil {
		return err
	}
	r.giver.Offered()
	if _, err := n.receive(kindCopy); err != nil {
		return err
	}
	if err := n.sendState(r.giver.Copy); err != nil {
		return err
	}
	if _, err := n.receive(kindHold); err != nil {
		return err
	}
	if err := errors.Join(n.send(message{Kind: kindHeld}, "held", nil), n.sendState(r.giver.Save)); err != nil {
		return err
	}
	_, err := n.receive(kindTake)
	return err
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestTakeOver hands over everything, also more descriptors than are sent at once.
func TestTakeOver(t *testing.T) {
	for _, files := range []int{0, 1, 500} {
		r := newTrial(t, true)
		r.giver.Offered()
		r.giver = newGiver(t, process(t, true), files, 1_000_000)
		r.taker.files, r.taker.size = files, 1_000_000
		if given, taken := r.run(t); given != nil || taken != nil {
			t.Fatalf("given: %v, taken: %v", given, taken)
		}
		if g, k := r.giver.was(), r.taker.was(); g != "offer copy hold save leave" || k != "prepare copy save" {
			t.Errorf("the calls of the old process were %q, those of the new one %q", g, k)
		}
	}
}

// TestFailure makes each step of either process fail. The old process must continue, and both
// processes must return the reason.
func TestFailure(t *testing.T) {
	no := errors.New("no, since it is a test")
	for _, tt := range []struct{ who, step, want string }{
		{"old", "offer", "offer"},
		{"old", "copy", "offer copy release"},
		{"old", "hold", "offer copy hold release"},
		{"old", "save", "offer copy hold save release"},
		{"new", "prepare", "offer"},
		{"new", "copy", "offer copy release"},
		{"new", "save", "offer copy hold save release"},
	} {
		t.Run(tt.who+"/"+tt.step, func(t *testing.T) {
			r := newTrial(t, true)
			of := &r.giver.steps
			if tt.who == "new" {
				of = &r.taker.steps
			}
			of.before[tt.step] = func() error { return no }
			if tt.step == "offer" {
				defer r.giver.Offered()
				r.giver.files, r.giver.before["offer"] = nil, func() error { return no }
			}
			given, taken := r.run(t)
			if given == nil || taken == nil || !strings.Contains(given.Error(), no.Error()) || !strings.Contains(taken.Error(), no.Error()) {
				t.Errorf("given: %v, taken: %v", given, taken)
			}
			if g := r.giver.was(); g != tt.want {
				t.Errorf("the calls of the old process were %q, want %q", g, tt.want)
			}
		})
	}
}

// TestKilled kills either process at each step. If the old process was killed after everything
// was handed over, the new one must run.
func TestKilled(t *testing.T) {
	for _, tt := range []struct {
		who, step, want string
	}{
		{who: "new", step: "prepare", want: "offer"},
		{who: "new", step: "copy", want: "offer copy release"},
		{who: "new", step: "save", want: "offer copy hold save release"},
		{who: "old", step: "offer", want: "offer"},
		{who: "old", step: "copy", want: "offer copy release"},
		{who: "old", step: "hold", want: "offer copy hold release"},
		{who: "old", step: "save", want: "offer copy hold save release"},
	} {
		t.Run(tt.who+"/"+tt.step, func(t *testing.T) {
			r := newTrial(t, tt.who == "new")
			die := func() error { return r.next.Close() }
			of := &r.taker.steps
			if tt.who == "old" {
				die, of = func() error { return r.old.Close() }, &r.giver.steps
			}
			of.before[tt.step] = die
			given, taken := r.run(t)
			if given == nil || taken == nil {
				t.Errorf("given: %v, taken: %v", given, taken)
			}
			if g := r.giver.was(); g != tt.want {
				t.Errorf("the calls of the old process were %q, want %q", g, tt.want)
			}
		})
	}
}

// TestKilledWithAll closes the connection of the old process once the new one has everything.
// The new process must run only if the old one is dead.
func TestKilledWithAll(t *testing.T) {
	defer func(l Limits) { limits = l }(limits)
	for _, alive := range []bool{false, true} {
		if alive {
			limits.Death = time.Millisecond
		}
		r := newTrial(t, alive)
		r.taker.before["save"] = func() error { return nil }
		n := newConn(t.Context(), r.old)
		talked := make(chan error, 1)
		go func() {
			err := r.giveAll(n)
			n.close()
			talked <- err
		}()
		taken := Take(t.Context(), r.next, r.taker)
		if err := <-talked; err != nil {
			t.Fatal(err)
		}
		if (taken == nil) == alive {
			t.Errorf("alive %v: %v", alive, taken)
		}
	}
}

// TestStopped stops the old process on purpose at each step. The new process must not mistake
// that for its death.
func TestStopped(t *testing.T) {
	for _, step := range []string{"offer", "copy", "hold", "save"} {
		r := newTrial(t, false)
		r.giver.before[step] = func() error {
			r.ended()
			return nil
		}
		given, taken := r.run(t)
		if given == nil || taken == nil || !strings.Contains(taken.Error(), errStopped.Error()) || slices.Contains(r.giver.calls, "leave") {
			t.Errorf("%s: given: %v, taken: %v, %s", step, given, taken, r.giver.was())
		}
	}
}

// TestSilence checks that either process gives up if the other one sends nothing.
func TestSilence(t *testing.T) {
	defer func(l Limits) { limits = l }(limits)
	limits.Prepare, limits.Step = 10*time.Millisecond, 10*time.Millisecond
	r := newTrial(t, true)
	if err := Give(t.Context(), r.old, json.RawMessage(`"request"`), r.giver); !errors.Is(err, os.ErrDeadlineExceeded) || r.giver.was() != "offer" {
		t.Errorf("%v, and the calls of the old process were %q", err, r.giver.was())
	}
	r = newTrial(t, true)
	r.giver.Offered()
	if err := Take(t.Context(), r.next, r.taker); !errors.Is(err, os.ErrDeadlineExceeded) || r.taker.was() != "" {
		t.Errorf("%v, and the new process did %q", err, r.taker.was())
	}
}

// TestNonsense sends invalid data as the old process.
func TestNonsense(t *testing.T) {
	for name, sent := range map[string][]byte{
		"older instance": nil,
		"another kind":   append([]byte{typeMessage, 0, 0, 0, 13}, `{"kind":"go"}`...),
		"no JSON":        {typeMessage, 0, 0, 0, 1, '{'},
		"too long":       {typeMessage, 255, 255, 255, 255},
		"state":          {typeChunk, 0, 0, 0, 1, 'x'},
		"no descriptors": append([]byte{typeMessage, 0, 0, 0, 26}, `{"kind":"offer","files":9}`...),
		"no process":     append([]byte{typeMessage, 0, 0, 0, 16}, `{"kind":"offer"}`...),
		"fewer than 0":   append([]byte{typeMessage, 0, 0, 0, 27}, `{"kind":"offer","files":-1}`...),
	} {
		r := newTrial(t, true)
		r.giver.Offered()
		if _, err := r.old.Write(sent); err != nil {
			t.Fatal(err)
		}
		if err := r.old.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := Take(t.Context(), r.next, r.taker); err == nil || r.taker.was() != "" {
			t.Errorf("%s: %v, and the new process did %q", name, err, r.taker.was())
		}
	}
}
