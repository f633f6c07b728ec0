package integration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fragwall/integration/meter"
)

// socketOf returns the path of the control socket of a process.
func (p *process) socketOf() string {
	return regexp.MustCompile(`socket=(\S+)`).FindStringSubmatch(p.stderr.String())[1]
}

// TestTakeOverTwice starts two processes at once that take over. One takes over. The other one is refused,
// or it takes over from the first, or the first from it.
func TestTakeOverTwice(t *testing.T) {
	n, before := newMiddle(t)
	b := startBox(t, n, devices+stateful)
	idle := b.acquaint(t, 2)
	refused := 0
	for range handoverScale().times {
		old := b.process
		candidates := []*process{
			launch(t, n.Middle, nil, "run", "-c", b.file, "--replace"), launch(t, n.Middle, nil, "run", "-c", b.file, "--replace"),
		}
		if code := old.wait(t); code != 0 {
			t.Errorf("the old process ended with %d:\n%s", code, old.stderr.String())
		}
		// If one process is late enough, it takes over from the other one.
		var ended []*process
		eventually(t, func() error {
			ended = nil
			for _, c := range candidates {
				if c.hasEnded() {
					ended = append(ended, c)
				} else {
					b.process = c
				}
			}
			if len(ended) != 1 {
				return fmt.Errorf("%d of 2 processes ended", len(ended))
			}
			return nil
		})
		switch text := ended[0].stderr.String(); {
		case ended[0].code == 0 && strings.Contains(text, "another process took over"):
		case ended[0].code == 1 && strings.Contains(text, "another take-over is in progress"):
			refused++
		default:
			t.Errorf("a process ended with %d:\n%s", ended[0].code, text)
		}
		b.ready(t)
		idle.talk(t)
	}
	t.Logf("%d of %d take-overs were refused", refused, handoverScale().times)
	b.endAs(t, before)
}

// TestTakeOverHostile sends invalid requests, or only a part of the take-over protocol, on the control
// socket. The process must continue, and another process must be able to take over.
func TestTakeOverHostile(t *testing.T) {
	n, before := newMiddle(t)
	b := startBox(t, n, devices+stateful)
	idle := b.acquaint(t, 2)
	socket := b.socketOf()
	offered := request(t, b)
	say := func(kinds ...string) (text string) {
		for _, kind := range kinds {
			said := fmt.Sprintf(`{"kind":%q}`, kind)
			text += fmt.Sprintf("m\x00\x00\x00%c%s", len(said), said)
		}
		return text
	}
	answers := map[string]string{"hold": `"held"`, "take": `"go"`} // answers to await; after them, no frames are read
	for name, sent := range map[string][]string{
		"nothing":          {""},
		"noise":            {strings.Repeat("\x00\xff", 1000)},
		"half a request":   {offered[:len(offered)/2]},
		"no JSON":          {"replace {\n"},
		"another format":   {strings.Replace(offered, `"format":1`, `"format":2`, 1)},
		"other devices":    {strings.Replace(offered, "fw-in", "fw-xx", 1)},
		"request":          {offered},
		"copy":             {offered, say("copy")},
		"hold":             {offered, say("copy", "hold")},
		"take":             {offered, say("copy", "hold", "take")},
		"wrong order":      {offered, say("hold", "copy", "take", "running")},
		"too long":         {offered, "m\xff\xff\xff\xff"},
		"descriptors":      {offered, "f\x00\x00\x00\x00f\x00\x00\x00\x00"},
		"running too soon": {offered, say("copy", "running")},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("unix", socket)
			must(t, err)
			defer c.Close()
			said := len(b.stderr.String())
			for i, text := range sent {
				_, err := io.WriteString(c, text)
				must(t, err)
				if i == 0 && len(sent) > 1 { // the rest must not arrive together with the request
					_, err := c.Read(make([]byte, 1))
					must(t, err)
				}
			}
			if len(sent) == 1 {
				must(t, c.(*net.UnixConn).CloseWrite())
			}
			if answer := answers[name]; answer != "" {
				for text := ""; !strings.Contains(text, answer); {
					b := make([]byte, 1<<16)
					n, err := c.Read(b)
					must(t, err)
					text += string(b[:n])
				}
			}
			read := make(chan struct{})
			go func() { defer close(read); _, _ = io.Copy(io.Discard, c) }()
			begun := time.Now()
			idle.talk(t)
			if took := time.Since(begun); took > 7*time.Second {
				t.Errorf("frames passed after %v", took)
			} else {
				t.Logf("frames passed after %v", took)
			}
			_ = c.Close()
			<-read
			idle.talk(t)
			if strings.HasSuffix(sent[0], "\n") { // before that, the process refuses another request
				b.stderr.await(t, b.process, said, "this process continues")
			}
			if b.hasEnded() {
				t.Fatalf("the process ended:\n%s", b.stderr.String())
			}
		})
	}
	b.replace(t)
	idle.talk(t)
	b.endAs(t, before)
}

// request returns the line with which a process requests to take over from a box.
func request(t *testing.T, b *box) string {
	t.Helper()
	// The process sends the request to a listener that replaces the box.
	socket := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", socket)
	must(t, err)
	got := make(chan string, 1)
	go func() {
		defer l.Close()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line := make([]byte, 4096)
			n, _ := c.Read(line)
			switch text := string(line[:n]); {
			case strings.HasPrefix(text, "file"):
				_ = json.NewEncoder(c).Encode(struct{ Text string }{b.file})
			case strings.HasPrefix(text, "replace"):
				_ = c.Close()
				got <- text
				return
			}
			_ = c.Close()
		}
	}()
	p := launch(t, b.Middle, nil, "run", "-c", b.file, "--replace", "--socket", socket)
	if code := p.wait(t); code != 1 {
		t.Errorf("exit code %d: %s", code, p.stderr.String())
	}
	select {
	case line := <-got:
		return line
	case <-time.After(waitTimeout):
		t.Fatal("no request")
		return ""
	}
}

// TestTakeOverStopped stops the new process with SIGSTOP at several moments of a hand-over. If the new
// process forwards by then, frames wait until it continues. Otherwise they must pass within 8 s.
func TestTakeOverStopped(t *testing.T) {
	n, before := newMiddle(t)
	b := startBox(t, n, devices+stateful)
	idle := b.acquaint(t, 2)
	begun := time.Now()
	b.replace(t)
	took := time.Since(begun)
	moments := handoverScale().times
	outcomes := map[string]int{}
	for i := range moments {
		next := launch(t, n.Middle, nil, "run", "-c", b.file, "--replace")
		time.Sleep(took * time.Duration(i) / time.Duration(moments)) // the moment of the stop is what the test varies
		next.signal(t, syscall.SIGSTOP)
		stopped := time.Now()
		// The old process continues after at most 5 s, or it has ended.
		passes := func() error {
			if b.hasEnded() {
				return nil
			}
			if sent, arrived := b.probe(t); arrived < sent {
				return fmt.Errorf("%d of %d datagrams arrived", arrived, sent)
			}
			return nil
		}
		eventually(t, passes)
		if late := time.Since(stopped); late > 8*time.Second {
			t.Errorf("frames passed after %v", late)
		}
		next.signal(t, syscall.SIGCONT)
		eventually(t, func() error {
			if !b.hasEnded() && !next.hasEnded() {
				return errors.New("both processes run")
			}
			return nil
		})
		outcome := "the new process took over"
		if b.hasEnded() {
			b.process = next
		} else {
			outcome = "the old process continued"
			if next.code != 1 {
				t.Errorf("the new process ended with %d:\n%s", next.code, next.stderr.String())
			}
		}
		outcomes[outcome]++
		b.ready(t)
		b.forwards(t)
		idle.talk(t)
	}
	t.Log(outcomes)
	b.endAs(t, before)
}

// belongings holds the resources of a process.
type belongings struct {
	open                          map[string]int // number of descriptors, by kind
	memory, goroutines, takeovers int            // memory in KiB
}

// belongings returns the resources of the process.
func (b *box) belongings(t *testing.T) (has belongings) {
	t.Helper()
	has.open = map[string]int{}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", b.Pid))
	must(t, err)
	for _, f := range files {
		kind, err := os.Readlink(f)
		if err != nil {
			continue // the descriptor has been closed
		}
		if of, _, numbered := strings.Cut(kind, ":["); numbered {
			kind = of
		}
		has.open[kind]++
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.Pid))
	must(t, err)
	for text, of := range map[string]*int{
		`VmRSS:\s+(\d+)`: &has.memory, `(?m)^fragwall_goroutines (\d+)`: &has.goroutines, `(?m)^fragwall_takeovers_total (\d+)`: &has.takeovers,
	} {
		m := regexp.MustCompile(text).FindStringSubmatch(string(status) + fetch(t, b.Middle, "/metrics"))
		if m == nil {
			t.Fatalf("nothing matches %s", text)
		}
		*of, err = strconv.Atoi(m[1])
		must(t, err)
	}
	return has
}

// TestTakeOverManyTimes replaces the process many times under load. Its resources must not grow.
func TestTakeOverManyTimes(t *testing.T) {
	times := map[bool]int{false: 6, true: 50}[*fullHandover > 0]
	n, before := newMiddle(t)
	b := startBox(t, n, devices+stateful)
	idle := b.acquaint(t, 5)
	l := meter.Load{Small: 1000, Fragmented: 50, Stream: 1_000_000}
	m, err := meter.Start(b.Hosts, l)
	must(t, err)
	b.replace(t)
	flows(t, m, l, 500*time.Millisecond)
	was := b.belongings(t)
	for range times {
		b.replace(t)
		idle.talk(t)
	}
	flows(t, m, l, 500*time.Millisecond)
	is := b.belongings(t)
	_, err = m.Stop()
	must(t, err)
	t.Logf("after 1 hand-over: %+v\nafter %d: %+v", was, 1+times, is)
	for kind, n := range is.open {
		if n > was.open[kind]+1 {
			t.Errorf("descriptors of kind %s: %d after 1 hand-over, %d after %d", kind, was.open[kind], n, 1+times)
		}
	}
	if is.goroutines > was.goroutines+5 || is.memory > was.memory*3/2 || is.takeovers != 1+times {
		t.Errorf("resources after 1 hand-over: %+v, after %d: %+v", was, 1+times, is)
	}
	b.endAs(t, before)
}
