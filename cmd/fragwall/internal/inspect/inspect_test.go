package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/selector"
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/stack"
	"fragwall/tun"
	"fragwall/tun/tuntest"
	"fragwall/wire"
)

// ends are the two ends of a control socket: a client and a box.
type ends struct {
	Client
	box  *wire.Stepper
	log  *bytes.Buffer // may be read while no request runs
	stop func()        // returns once nothing writes to the log
	now  time.Time
}

// serve serves a box with a policy that accepts flows from the inside.
func serve(t *testing.T, stateful bool) *ends {
	t.Helper()
	policy := &filter.Policy{Stateful: stateful, Rules: []filter.Rule{{Name: "out", Line: 3, Action: verdict.Accept, From: new(verdict.Side)}}}
	e := &ends{log: new(bytes.Buffer), now: time.Unix(1000, 0)}
	e.box = wire.NewStepper(wire.Config{Policy: policy, Mode: packet.ModeReassemble, Fragments: stack.Options{
		TimeoutIPv4: 30 * time.Second, TimeoutIPv6: 60 * time.Second, Memory: 1 << 20, MaxFragments: 64, MaxDatagrams: 64,
	}, Sides: [verdict.Sides]wire.SideConfig{{MTU: 1500, Lanes: nowhere()}, {MTU: 1500, Lanes: nowhere()}}})
	t.Cleanup(e.box.Close)
	e.Socket = filepath.Join(t.TempDir(), "s.sock")
	l, err := control.Listen(e.Socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	config := &rules.Config{File: "/fw.toml", Policy: policy}
	serving.Go(func() {
		l.Serve(ctx, control.Service{Handlers: control.Handlers{control.RequestFile: func() any { return control.Outcome{Text: config.File} }}, Streams: Streams(Box{
			Lister: listing.New(e.box.Bump), Bump: e.box.Bump, Config: func() *rules.Config { return config }, Log: slog.New(slog.NewTextHandler(e.log, nil)),
			Change: func(change func() error) error { return change() },
		})})
	})
	e.stop = sync.OnceFunc(func() {
		cancel()
		serving.Wait()
	})
	t.Cleanup(e.stop)
	return e
}

// nowhere returns a lane that discards all frames.
func nowhere() []tun.Lane {
	return []tun.Lane{tuntest.Sink(func([]tun.Frame) (int, error) { return 0, nil })}
}

// send forwards a frame from the inside.
func (e *ends) send(frame []byte) {
	e.box.Forward(verdict.Inside, tun.Frame{Data: frame}, e.now)
}

// begin begins one flow to each port.
func (e *ends) begin(ports ...uint16) {
	for _, port := range ports {
		e.send(packettest.UDP(netip.MustParseAddrPort("10.0.0.1:40000"), netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port), nil).Frame())
	}
}

// wait sends the first fragments of a number of datagrams.
func (e *ends) wait(datagrams int) {
	for i := range datagrams {
		d := packettest.UDP(netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("192.0.2.1:53"), packettest.Body(2000))
		d.ID = uint32(i + 1)
		e.send(d.Fragments(1480)[0])
	}
}

func TestFlows(t *testing.T) {
	e := serve(t, true)
	e.begin(53, 54, 55)
	for _, tt := range []struct {
		query listing.Query
		want  []uint16
	}{
		{listing.Query{}, []uint16{53, 54, 55}},
		{listing.Query{Selector: selector.Selector{"dport": "54"}}, []uint16{54}},
		{listing.Query{Selector: selector.Selector{"from": "outside"}}, nil},
	} {
		var got []uint16
		about, err := e.Flows(t.Context(), tt.query, func(f *listing.Flow) error {
			got = append(got, *f.DstPort)
			return nil
		})
		if slices.Sort(got); err != nil || !about.Stateful || !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %d, %+v, %v; want %d", tt.query, got, about, err, tt.want)
		}
		if n, err := e.CountFlows(t.Context(), tt.query); err != nil || n.Flows != len(tt.want) {
			t.Errorf("%+v: %+v, %v", tt.query, n, err)
		}
	}
	n := 0
	if _, err := e.Flows(t.Context(), listing.Query{Sort: listing.ByAge, Limit: 2}, func(*listing.Flow) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("%d of 2 flows, %v", n, err)
	}
	enough := errors.New("enough")
	if _, err := e.Flows(t.Context(), listing.Query{}, func(*listing.Flow) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v, want what the caller returned", err)
	}
}

func TestFlowsOfStatelessPolicy(t *testing.T) {
	e := serve(t, false)
	e.begin(53)
	if about, err := e.Flows(t.Context(), listing.Query{}, func(*listing.Flow) error { t.Error("a flow"); return nil }); err != nil || about.Stateful {
		t.Errorf("%+v, %v", about, err)
	}
}

// TestDeleteFlows checks that only the selected flows are deleted, and that the log names the
// user.
func TestDeleteFlows(t *testing.T) {
	e := serve(t, true)
	e.begin(53, 54, 55)
	if n, err := e.DeleteFlows(t.Context(), listing.Query{Selector: selector.Selector{"dport": "54"}}, false); err != nil || n.Flows != 1 {
		t.Errorf("%+v, %v", n, err)
	}
	usage := (*exit.UsageError)(nil)
	if n, err := e.DeleteFlows(t.Context(), listing.Query{}, false); !errors.As(err, &usage) || n.Flows != 0 {
		t.Errorf("without a filter: %+v, %v", n, err)
	}
	if n, err := e.CountFlows(t.Context(), listing.Query{}); err != nil || n.Flows != 2 {
		t.Errorf("%+v left, %v", n, err)
	}
	if n, err := e.DeleteFlows(t.Context(), listing.Query{}, true); err != nil || n.Flows != 2 {
		t.Errorf("all: %+v, %v", n, err)
	}
	e.stop()
	for _, want := range []string{`msg="flows deleted" flows=1 filter="--dport 54" uid=`, `msg="flow deletion refused" filter=""`, `flows=2 filter=""`} {
		if !strings.Contains(e.log.String(), want) {
			t.Errorf("%s\nwant %q", e.log, want)
		}
	}
}

func TestWaiting(t *testing.T) {
	e := serve(t, true)
	e.wait(3)
	all, err := e.Waiting(t.Context(), listing.Query{})
	if err != nil || len(all) != 3 {
		t.Fatalf("%d datagrams, %v", len(all), err)
	}
	if some, err := e.Waiting(t.Context(), listing.Query{Limit: 2}); err != nil || len(some) != 2 {
		t.Errorf("%d of 2 datagrams, %v", len(some), err)
	}
	if none, err := e.Waiting(t.Context(), listing.Query{Selector: selector.Selector{"dport": "54"}}); err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	sources, err := e.Sources(t.Context(), listing.Query{})
	if err != nil || len(sources) != 1 || sources[0].Datagrams != 3 {
		t.Errorf("%+v, %v", sources, err)
	}
}

func TestExplain(t *testing.T) {
	e := serve(t, true)
	e.begin(53)
	q := rules.Question{"from": "outside", "protocol": "udp", "src": "192.0.2.1", "src_port": "53", "dst": "10.0.0.1", "dst_port": "40000"}
	a, err := e.Explain(t.Context(), q)
	if err != nil || !a.Passes || a.Verdict != "accept" || a.Rule != "out" || a.File != "/fw.toml" || a.Flow == nil {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestWrongRequests sends requests that the client would refuse. The server must refuse them as
// well.
func TestWrongRequests(t *testing.T) {
	e := serve(t, true)
	e.begin(53)
	bad := []any{"text", map[string]any{"Selector": map[string]string{"port": "x"}}, map[string]any{"Selector": map[string]string{"colour": "red"}}, map[string]any{"Sort": "colour"}, map[string]any{"Limit": -1}}
	for _, request := range []string{requestFlows, requestCountFlows, requestDeleteFlows, requestWaiting, requestSources} {
		for _, argument := range bad {
			wrong(t, e.Client, request, argument)
		}
	}
	for _, argument := range []any{"text", nil, rules.Question{}, rules.Question{"from": 1}, rules.Question{"from": "inside", "protocol": "udp", "src": "10.0.0.1", "dst": "fd00::1"}} {
		wrong(t, e.Client, requestExplain, argument)
	}
	if n, err := e.CountFlows(t.Context(), listing.Query{}); err != nil || n.Flows != 1 {
		t.Errorf("%+v left, %v", n, err)
	}
}

func wrong(t *testing.T, c Client, request string, argument any) {
	t.Helper()
	err := c.Follow(t.Context(), request, argument, func(record []byte) error {
		return errors.New("answered: " + string(record))
	})
	if usage := (*exit.UsageError)(nil); !errors.As(err, &usage) {
		b, _ := json.Marshal(argument)
		t.Errorf("%s %s: %v, want wrong usage", request, b, err)
	}
}
