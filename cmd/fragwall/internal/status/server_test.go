package status

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"fragwall/cmd/fragwall/internal/events"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
	"fragwall/wire"
)

var (
	client = netip.MustParseAddrPort("192.0.2.1:1234")
	server = netip.MustParseAddrPort("198.51.100.1:53")
)

// limits are the limits of incomplete datagrams.
func limits() stack.Options {
	return stack.Options{TimeoutIPv4: time.Minute, TimeoutIPv6: time.Minute, Memory: 1 << 20, MaxFragments: 64, MaxDatagrams: 128}
}

// newSource returns the source of a box that has forwarded one datagram of rule "dns", dropped
// one of rule "others" and one truncated frame, and holds two fragments.
func newSource(t testing.TB) (*report.Source, *wire.Stepper) {
	t.Helper()
	recorder := events.NewRecorder(slog.DiscardHandler, filter.Rate{Count: 10, Per: time.Second})
	policy := &filter.Policy{Rules: []filter.Rule{
		{Name: "dns", Line: 7, Action: verdict.Accept, DstPorts: filter.NewSet(filter.Range[uint16]{Lo: 53, Hi: 53})},
		{Name: "others", Line: 9, Action: verdict.Drop},
		{Name: "few", Line: 12, Action: verdict.Accept, Limit: filter.Rate{Count: 1, Per: time.Second}},
	}}
	s := wire.NewStepper(wire.Config{
		Sides:  [verdict.Sides]wire.SideConfig{{Lanes: []tun.Lane{sinkLane{}}, MTU: 1500}, {Lanes: []tun.Lane{sinkLane{}}, MTU: 1500}},
		Policy: policy, Mode: packet.ModeReassemble, Fragments: limits(), Observer: recorder,
	})
	t.Cleanup(s.Close)
	fragments := packettest.UDP(client, server, packettest.Body(4000)).Fragments(1448)
	for _, frame := range [][]byte{
		packettest.UDP(client, server, nil).Frame(), packettest.UDP(server, client, nil).Frame(), make([]byte, 5), fragments[0], fragments[1],
	} {
		s.Forward(verdict.Inside, tun.Frame{Data: frame}, time.Unix(1, 0))
	}
	// The box itself would call Run.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	recorder.Run(ctx)
	return &report.Source{
		Build: report.Build{Version: "1.2.3", Go: "go1", GVisor: "v0"}, Devices: [verdict.Sides]string{"fw-in", "fw-out"}, Mode: packet.ModeReassemble, Limits: limits(),
		Takeover: &report.Takeover{Count: 2, Time: time.Unix(150, 0), PauseSeconds: 0.0026},
		Bump:     s.Bump, Events: recorder, Started: time.Unix(100, 0), Ready: func() bool { return true },
		Links: func() [verdict.Sides]report.Link {
			return [verdict.Sides]report.Link{{Up: true, MTU: 1500}, {NIC: "eth0", Joined: true, Up: true, MTU: 1500, Speed: 10e9}}
		},
		Missed: func() map[verdict.Side]uint64 { return map[verdict.Side]uint64{verdict.Inside: 17} },
		FastPath: func() report.FastPath {
			return report.FastPath{State: report.FastPathOn, Entries: 3, EntriesLimit: 64, MapErrors: 2, Sides: map[string]report.FastPathSide{
				"inside": {Forwarded: 5, ForwardedBytes: 500, Dropped: 2, DroppedBytes: 120, PassedUp: map[string]uint64{"unknown_flow": 7}}, "outside": {},
			}}
		},
		Policy: func() report.Policy {
			return report.Policy{Generation: 3, Since: time.Unix(200, 0), Failures: 1, Default: "drop"}
		},
	}, s
}

// sinkLane accepts all frames.
type sinkLane struct{ tun.Lane }

func (sinkLane) Write([]tun.Frame) (int, error) { return 0, nil }

func (sinkLane) Shed() uint64 { return 0 }

// get returns the answer of a handler to a GET request.
func get(h http.Handler, path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Host = "127.0.0.1:9477"
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestMetrics compares a scrape with what the box did.
func TestMetrics(t *testing.T) {
	source, _ := newSource(t)
	w := get(NewServer(source, nil, "").handler(), "/metrics")
	text := w.Body.String()
	for _, line := range []string{
		`fragwall_build_info{go="go1",gvisor="v0",version="1.2.3"} 1`,
		`fragwall_ready 1`,
		`fragwall_nic_joined{side="outside"} 1`,
		`fragwall_start_time_seconds 100`,
		`fragwall_missed_frames_total{side="inside"} 17`,
		`fragwall_received_frames_total{side="inside"} 5`,
		`fragwall_received_frames_total{side="outside"} 0`,
		`fragwall_forwarded_frames_total{side="inside"} 1`,
		`fragwall_waiting_frames{side="inside"} 2`,
		`fragwall_dropped_frames_total{reason="policy_rule",side="inside"} 1`,
		`fragwall_dropped_frames_total{reason="ethernet_truncated",side="inside"} 1`,
		`fragwall_dropped_frames_total{reason="fragment_overlap",side="outside"} 0`,
		`fragwall_received_bytes_total{side="inside"} 3053`,
		`fragwall_forwarded_bytes_total{side="inside"} 42`,
		`fragwall_fastpath_info{reason="",state="on"} 1`,
		`fragwall_fastpath_frames_total{side="inside"} 7`,
		`fragwall_fastpath_bytes_total{side="inside"} 620`,
		`fragwall_fastpath_dropped_frames_total{side="inside"} 2`,
		`fragwall_fastpath_frames_total{side="outside"} 0`,
		`fragwall_fastpath_entries 3`,
		`fragwall_fastpath_entries_limit 64`,
		`fragwall_fastpath_passed_up_frames_total{reason="unknown_flow",side="inside"} 7`,
		`fragwall_fastpath_passed_up_frames_total{reason="flags",side="outside"} 0`,
		`fragwall_fastpath_map_errors_total 2`,
		`fragwall_waiting_datagrams 1`,
		`fragwall_waiting_datagrams_limit 128`,
		`fragwall_waiting_bytes_limit 1.048576e+06`,
		`fragwall_rule_datagrams_total{rule="dns"} 1`,
		`fragwall_rule_bytes_total{rule="dns"} 28`,
		`fragwall_rule_over_limit_datagrams_total{rule="few"} 0`,
		`fragwall_flows 0`,
		`fragwall_policy_generation 3`,
		`fragwall_takeovers_total 2`,
		`fragwall_takeover_pause_seconds 0.0026`,
		`fragwall_policy_time_seconds 200`,
		`fragwall_reloads_total{state="success"} 2`,
		`fragwall_reloads_total{state="failure"} 1`,
		`fragwall_events_total{state="logged"} 2`,
		`fragwall_latency_seconds_count{side="inside"} 0`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestSumsAgree checks in one scrape that received frames equal the sum of forwarded, dropped
// and waiting ones.
func TestSumsAgree(t *testing.T) {
	source, _ := newSource(t)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(get(NewServer(source, nil, "").handler(), "/metrics").Body)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]float64{}
	for name, sign := range map[string]float64{"received_frames_total": -1, "forwarded_frames_total": 1, "dropped_frames_total": 1, "waiting_frames": 1} {
		for _, m := range families["fragwall_"+name].GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "side" {
					sums[l.GetValue()] += sign * (m.GetCounter().GetValue() + m.GetGauge().GetValue())
				}
			}
		}
	}
	if len(sums) != 2 || sums["inside"] != 0 || sums["outside"] != 0 {
		t.Errorf("the sums differ by %v, want 0", sums)
	}
}

func TestMetricsLint(t *testing.T) {
	source, _ := newSource(t)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{source})
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestReport compares /api/status with what the box did.
func TestReport(t *testing.T) {
	source, _ := newSource(t)
	w := get(NewServer(source, nil, "").handler(), "/api/status")
	if kind := w.Header().Get("Content-Type"); kind != "application/json" {
		t.Error(kind)
	}
	var r report.Report
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	in := r.Sides["inside"]
	if in.ReceivedFrames != 5 || in.Forwarded != 1 || in.Waiting != 2 || in.DroppedFrames != 2 || in.Dropped["policy_rule"] != 1 || in.Device != "fw-in" || in.Missed == nil || *in.Missed != 17 {
		t.Errorf("%+v", in)
	}
	if missed := r.Sides["outside"].Missed; missed != nil {
		t.Errorf("%d missed frames of a side whose device is gone", *missed)
	}
	if len(r.Rules) != 3 || r.Rules[0] != (report.Rule{Name: "dns", Line: 7, Action: "accept", Datagrams: 1, Bytes: 28}) || r.Rules[2].OverLimit == nil {
		t.Errorf("%+v", r.Rules)
	}
	if f := r.Fragments; f.Mode != "reassemble" || f.Datagrams != 1 || f.Bytes == 0 || f.BytesLimit != 1<<20 {
		t.Errorf("%+v", f)
	}
	if len(r.Events) != 2 || r.Events[1].Rule != "others" || r.Events[1].Src.String() != "198.51.100.1" || r.Events[1].SrcPort.Value != 53 || r.Events[0].Reason != "ethernet_truncated" {
		t.Errorf("%+v", r.Events)
	}
}

// TestEmptyReport checks that empty lists are encoded as lists, not as null.
func TestEmptyReport(t *testing.T) {
	source, _ := newSource(t)
	source.Events = events.NewRecorder(slog.DiscardHandler, filter.Rate{})
	source.Bump.Reload(&filter.Policy{})
	text := get(NewServer(source, nil, "").handler(), "/api/status").Body.String()
	for _, want := range []string{`"events":[]`, `"rules":[]`, `"dropped":{}`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

// TestToken checks that everything about the box requires the token, and nothing else does.
func TestToken(t *testing.T) {
	source, _ := newSource(t)
	h := NewServer(source, nil, "0123456789abcdef").handler()
	bearer := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", value); r.Host = "box.example" }
	}
	tests := []struct {
		path, header string
		code         int
	}{
		{"/metrics", "", 401},
		{"/metrics", "Bearer 0123456789abcdeX", 401},
		{"/metrics", "Bearer 0123456789abcdef0", 401},
		{"/metrics", "Basic 0123456789abcdef", 401},
		{"/metrics", "0123456789abcdef", 401},
		{"/metrics", "Bearer 0123456789abcdef", 200},
		{"/api/status", "", 401},
		{"/api/history", "", 401},
		{"/api/history", "Bearer 0123456789abcdef", 200},
		{"/api/status", "bearer 0123456789abcdef", 200},
		{"/", "", 200},
		{"/healthz", "", 200},
		{"/readyz", "", 200},
	}
	for _, tt := range tests {
		if w := get(h, tt.path, bearer(tt.header)); w.Code != tt.code {
			t.Errorf("%s with %q: %d, want %d", tt.path, tt.header, w.Code, tt.code)
		}
	}
}

// TestForeignNames checks that requests under a foreign host name are refused.
func TestForeignNames(t *testing.T) {
	source, _ := newSource(t)
	h := NewServer(source, nil, "").handler()
	for host, code := range map[string]int{
		"127.0.0.1:9477": 200, "[::1]:9477": 200, "localhost:9477": 200, "127.0.0.1": 200, "evil.example": 403, "127.0.0.1.evil.example:9477": 403, "": 403,
	} {
		if w := get(h, "/api/status", func(r *http.Request) { r.Host = host }); w.Code != code {
			t.Errorf("host %q: %d, want %d", host, w.Code, code)
		}
	}
}

func TestMethods(t *testing.T) {
	source, _ := newSource(t)
	h := NewServer(source, nil, "").handler()
	for _, path := range []string{"/metrics", "/api/status", "/", "/healthz"} {
		if w := get(h, path, func(r *http.Request) { r.Method = http.MethodPost }); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	if w := get(h, "/etc/passwd"); w.Code != http.StatusNotFound {
		t.Error(w.Code)
	}
}

func TestNotReady(t *testing.T) {
	source, _ := newSource(t)
	ready, up := false, true
	source.Ready = func() bool { return ready }
	source.Links = func() [verdict.Sides]report.Link {
		return [verdict.Sides]report.Link{{Up: true}, {NIC: "eth0", Joined: true, Up: up}}
	}
	h := NewServer(source, nil, "").handler()
	if w := get(h, "/readyz"); w.Code != http.StatusServiceUnavailable {
		t.Error(w.Code)
	}
	ready, up = true, false
	if w := get(h, "/readyz"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "no link at outside") {
		t.Error(w.Code, w.Body)
	}
	if r := source.Report(time.Now()); !r.Ready || r.Sides["outside"].Link != "down" || r.Sides["inside"].Link != "up" {
		t.Errorf("%v %+v", r.Ready, r.Sides)
	}
	if w := get(h, "/healthz"); w.Code != http.StatusOK {
		t.Error(w.Code)
	}
}

// TestServe sends a request over a connection, and ends the server.
func TestServe(t *testing.T) {
	source, _ := newSource(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- NewServer(source, nil, "").Serve(ctx, l) }()
	response, err := http.Get("http://" + l.Addr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if string(text) != "ready\n" {
		t.Errorf("%q", text)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestHistory checks the history of the last hour, and since a time.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, s := newSource(t)
		ctx, cancel := context.WithCancel(t.Context())
		server := NewServer(source, nil, "")
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(ctx, newPipes()) }()
		synctest.Wait()
		s.Forward(verdict.Inside, tun.Frame{Data: make([]byte, 5)}, time.Now())
		time.Sleep(11 * time.Second)
		ask := func(query string) (h History) {
			t.Helper()
			w := get(server.handler(), "/api/history"+query)
			if err := json.Unmarshal(w.Body.Bytes(), &h); err != nil || w.Code != http.StatusOK {
				t.Fatalf("%d: %v: %s", w.Code, err, w.Body)
			}
			return h
		}
		h := ask("")
		if len(h.Points) != 2 || h.Resolution != 5 || !h.Started.Equal(source.Started) || h.Points[0].Sides["inside"].Dropped["ethernet_truncated"] != 1 {
			t.Errorf("%+v", h)
		}
		since := ask("?since=" + url.QueryEscape(h.Points[0].Time.Format(time.RFC3339Nano)))
		if len(since.Points) != 1 || !since.Points[0].Time.Equal(h.Points[1].Time) {
			t.Errorf("%+v", since)
		}
		if w := get(server.handler(), "/api/history?since=yesterday"); w.Code != http.StatusBadRequest {
			t.Error(w.Code)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
