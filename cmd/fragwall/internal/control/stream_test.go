package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/exit"
)

// streaming serves streams and the name of the configuration file.
func streaming(t *testing.T, streams Streams) (Instance, *Listener) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	l := serveStreams(t, path, Handlers{RequestFile: func() any { return Outcome{Text: "/x.toml"} }}, streams)
	return Instance{Socket: path}, l
}

// collect returns the records of an answer.
func collect(t *testing.T, i Instance, request string, argument any) (records []string, err error) {
	t.Helper()
	err = i.Follow(t.Context(), request, argument, func(record []byte) error {
		records = append(records, string(record))
		return nil
	})
	return records, err
}

func TestStream(t *testing.T) {
	long := strings.Repeat("x", MaxRecord)
	instance, _ := streaming(t, Streams{
		"echo": func(_ context.Context, argument json.RawMessage, to *Stream) error {
			return errors.Join(to.Send([]byte("first")), to.Flush(), to.Send([]byte(long)), to.SendJSON(argument))
		},
		"none": func(_ context.Context, argument json.RawMessage, to *Stream) error {
			return to.SendJSON(argument == nil)
		},
		"fails": func(_ context.Context, _ json.RawMessage, to *Stream) error {
			return errors.Join(to.Send([]byte("one")), errors.New("no more"))
		},
		"usage": func(context.Context, json.RawMessage, *Stream) error { return exit.Usagef("want %q", "x") },
		"empty": func(_ context.Context, _ json.RawMessage, to *Stream) error { return to.Send(nil) },
		"who": func(_ context.Context, _ json.RawMessage, to *Stream) error {
			uid, pid := to.Client()
			return to.SendJSON([]int{uid, pid})
		},
	})
	if got, err := collect(t, instance, "echo", map[string]int{"a": 1}); err != nil || len(got) != 3 || got[0] != "first" || got[1] != long || got[2] != `{"a":1}` {
		t.Errorf("%d records, %v", len(got), err)
	}
	if got, err := collect(t, instance, "none", nil); err != nil || len(got) != 1 || got[0] != "true" {
		t.Errorf("%q, %v", got, err)
	}
	got, err := collect(t, instance, "fails", nil)
	if len(got) != 1 {
		t.Errorf("%q", got)
	}
	expectError(t, err, false, "no more")
	_, err = collect(t, instance, "usage", nil)
	expectError(t, err, true, `want "x"`)
	_, err = collect(t, instance, "empty", nil)
	expectError(t, err, false, "a record of 0 bytes")
	_, err = collect(t, instance, "unknown", nil)
	expectError(t, err, false, "the answer is incomplete")
	_, err = collect(t, instance, "echo", strings.Repeat("x", maxRequest))
	expectError(t, err, true, "too long")
	var who [2]int
	if got, err = collect(t, instance, "who", nil); err != nil || json.Unmarshal([]byte(got[0]), &who) != nil || who != [2]int{os.Geteuid(), os.Getpid()} {
		t.Errorf("%q, %v", got, err)
	}
}

// TestStreamClientStops checks that a handler ends when its client stops reading.
func TestStreamClientStops(t *testing.T) {
	ended := make(chan error, 1)
	instance, _ := streaming(t, Streams{
		"silent": func(ctx context.Context, _ json.RawMessage, to *Stream) error {
			_ = to.Send([]byte("begun"))
			_ = to.Flush()
			<-ctx.Done() // sends nothing more
			ended <- ctx.Err()
			return nil
		},
		"endless": func(_ context.Context, _ json.RawMessage, to *Stream) error {
			for {
				if err := to.Send([]byte("more")); err != nil {
					ended <- err
					return err
				}
			}
		},
	})
	enough := errors.New("enough")
	for _, request := range []string{"silent", "endless"} {
		if err := instance.Follow(t.Context(), request, nil, func([]byte) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("%s: %v", request, err)
		}
		if err := <-ended; err == nil {
			t.Errorf("%s: the handler did not fail", request)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := instance.Follow(ctx, "silent", nil, func([]byte) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
}

// TestStreamUnread checks that a stream ends if its client never reads.
func TestStreamUnread(t *testing.T) {
	old := streamTimeout
	t.Cleanup(func() { streamTimeout = old }) // runs after the instance has ended
	streamTimeout = 10 * time.Millisecond
	ended := make(chan error, 1)
	instance, _ := streaming(t, Streams{"endless": func(_ context.Context, _ json.RawMessage, to *Stream) error {
		for {
			if err := to.Send([]byte(strings.Repeat("x", 1000))); err != nil {
				ended <- err
				return err
			}
		}
	}})
	c, err := net.Dial("unix", instance.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "endless\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// TestStreamPlaces checks the limit on clients with streams.
func TestStreamPlaces(t *testing.T) {
	begun := make(chan struct{})
	instance, _ := streaming(t, Streams{"wait": func(ctx context.Context, _ json.RawMessage, _ *Stream) error {
		begun <- struct{}{}
		<-ctx.Done()
		return nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range maxStreams {
		clients.Go(func() { _ = instance.Follow(ctx, "wait", nil, func([]byte) error { return nil }) })
		<-begun
	}
	_, err := collect(t, instance, "wait", nil)
	expectError(t, err, false, "limit of 8 clients")
	if file, err := askFile(instance.Socket); file != "/x.toml" || err != nil {
		t.Errorf("%q, %v", file, err)
	}
	cancel()
	clients.Wait()
}

// TestStreamStops stops the instance while one client reads and another does not.
func TestStreamStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	begun := make(chan struct{}, 2)
	var serving sync.WaitGroup
	serving.Go(func() {
		l.Serve(ctx, Service{Handlers: Handlers{RequestFile: func() any { return Outcome{} }}, Streams: Streams{
			"wait": func(ctx context.Context, _ json.RawMessage, _ *Stream) error {
				begun <- struct{}{}
				<-ctx.Done()
				return nil
			},
			"endless": func(_ context.Context, _ json.RawMessage, to *Stream) error {
				begun <- struct{}{}
				for to.Send([]byte("x")) == nil {
				}
				return nil
			},
		}})
	})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "endless\n"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		ended <- Instance{Socket: path}.Follow(t.Context(), "wait", nil, func([]byte) error { return nil })
	}()
	<-begun
	<-begun
	stop()
	expectError(t, <-ended, false, "fragwall is stopping")
	serving.Wait()
}

// TestPace checks that requests use up the rate limit.
func TestPace(t *testing.T) {
	instance, l := streaming(t, nil)
	if l.pace.Limit() != maxRate {
		t.Errorf("%v requests a second, want %d", l.pace.Limit(), maxRate)
	}
	l.pace.SetLimit(1e-9)
	for range maxClients / 2 {
		if _, err := askFile(instance.Socket); err != nil {
			t.Fatal(err)
		}
	}
	if left := l.pace.Tokens(); left > maxClients/2 {
		t.Errorf("%v requests are left, want at most 8", left)
	}
}
