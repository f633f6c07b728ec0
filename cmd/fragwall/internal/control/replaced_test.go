package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestSocketTakenOver checks a socket that another process takes over: clients that have connected still
// get their answers, and the socket stays.
func TestSocketTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	begun, list := make(chan struct{}), make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		l.Serve(ctx, Service{
			Handlers: Handlers{RequestFile: func() any { return Outcome{Text: "/x.toml"} }},
			Streams: Streams{"list": func(ctx context.Context, _ json.RawMessage, to *Stream) error {
				close(begun)
				<-list
				return to.SendJSON("all of it")
			}},
		})
	})
	answer := make(chan error)
	go func() {
		answer <- Instance{Socket: path}.Follow(t.Context(), "list", nil, func([]byte) error { return nil })
	}()
	<-begun
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := askFile(path); err != nil { // this client was accepted after the previous one
		t.Fatal(err)
	}
	l.Leave()
	stop()
	close(list)
	if err := <-answer; err != nil {
		t.Errorf("the stream that had begun: %v", err)
	}
	var o Outcome
	if _, err := io.WriteString(c, RequestFile+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(c).Decode(&o); err != nil || o.Text != "/x.toml" {
		t.Errorf("the client that asked late: %+v, %v", o, err)
	}
	serving.Wait()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket: %v", err)
	}
}

// TestReplaced checks that a client asks again if another process took over from the instance,
// unless it has received records.
func TestReplaced(t *testing.T) {
	asked := 0
	instance, _ := streaming(t, Streams{
		"once": func(_ context.Context, _ json.RawMessage, to *Stream) error {
			if asked++; asked == 1 {
				return ErrReplaced
			}
			return to.SendJSON("answer")
		},
		"always": func(context.Context, json.RawMessage, *Stream) error { asked++; return ErrReplaced },
		"begun": func(_ context.Context, _ json.RawMessage, to *Stream) error {
			asked++
			return errors.Join(to.SendJSON("record"), ErrReplaced)
		},
	})
	for _, tt := range []struct {
		request        string
		asked, records int
		err            error
	}{{"once", 2, 1, nil}, {"always", maxTries, 0, ErrReplaced}, {"begun", 1, 1, ErrReplaced}} {
		asked = 0
		got, err := collect(t, instance, tt.request, nil)
		if !errors.Is(err, tt.err) || len(got) != tt.records || asked != tt.asked {
			t.Errorf("%s: %q, %v after %d requests; want %+v", tt.request, got, err, asked, tt)
		}
	}
}

// TestReloadReplaced checks that a client repeats a reload if another process took over.
func TestReloadReplaced(t *testing.T) {
	handlers, reloads := newInstance(t)
	answer := handlers[RequestReload]
	handlers[RequestReload] = func() any {
		if o := answer(); *reloads > 1 {
			return o
		}
		return Replaced()
	}
	path := filepath.Join(t.TempDir(), "s.sock")
	serve(t, path, handlers)
	if o, err := (Instance{Socket: path}).Reload(); err != nil || o != (Outcome{Text: "reloaded"}) || *reloads != 2 {
		t.Errorf("%+v, %v after %d requests", o, err, *reloads)
	}
}
