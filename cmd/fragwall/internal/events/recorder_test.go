package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fragwall/cmd/fragwall/internal/record"
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

var (
	client  = netip.MustParseAddrPort("192.0.2.1:1234")
	server  = netip.MustParseAddrPort("198.51.100.1:53")
	client6 = netip.MustParseAddrPort("[2001:db8::1]:1234")
	server6 = netip.MustParseAddrPort("[2001:db8::2]:53")
)

// watched returns a wire that the recorder observes.
func watched(t testing.TB, r *Recorder, p *filter.Policy) *wire.Stepper {
	t.Helper()
	end := wire.SideConfig{Lanes: []tun.Lane{tuntest.Discard}, MTU: 1500}
	s := wire.NewStepper(wire.Config{Sides: [verdict.Sides]wire.SideConfig{end, end}, Policy: p, Observer: r})
	t.Cleanup(s.Close)
	return s
}

// send forwards frames from the inside.
func send(s *wire.Stepper, frames ...[]byte) {
	for _, f := range frames {
		s.Forward(verdict.Inside, tun.Frame{Data: f}, time.Unix(1, 0))
	}
}

var tenASecond = filter.Rate{Count: 10, Per: time.Second}

// denied returns a frame that an empty policy drops.
func denied() []byte { return packettest.UDP(client, server, nil).Frame() }

// TestLimit checks the number of logged and suppressed drops at several rates.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := NewRecorder(slog.NewJSONHandler(&log, nil), tenASecond)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { r.Run(ctx); close(ended) }()
		s := watched(t, r, &filter.Policy{})
		step := func(frames int, logged, suppressed uint64) {
			t.Helper()
			for range frames {
				send(s, denied())
			}
			synctest.Wait()
			if a, b := r.Counts(); a != logged || b != suppressed {
				t.Errorf("logged %d, suppressed %d; want %d, %d", a, b, logged, suppressed)
			}
		}
		pass := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		step(25, 10, 15)
		pass(time.Second)
		step(1, 11, 15)
		if !strings.HasSuffix(log.String(), `"suppressed":15}`+"\n") {
			t.Error(log.String())
		}
		r.SetDrops(filter.Rate{})
		step(5, 11, 15)
		r.SetDrops(rules.All)
		step(500, 511, 15)
		r.SetDrops(filter.Rate{Count: 1, Per: time.Minute})
		step(2, 512, 16)
		pass(2 * time.Second)
		step(1, 512, 17)
		pass(time.Minute)
		step(1, 513, 17)
		if n := len(r.Last()); n != Kept {
			t.Errorf("%d events kept, want 200", n)
		}
		cancel()
		<-ended
	})
}

// TestSuppressedAreLogged checks that the number of suppressed events is logged even if no
// further event follows: once after a flood, and at the end.
func TestSuppressedAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := NewRecorder(slog.NewJSONHandler(&log, nil), tenASecond)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { r.Run(ctx); close(ended) }()
		s := watched(t, r, &filter.Policy{})
		flood := func(frames int) {
			for range frames {
				send(s, denied())
			}
			synctest.Wait()
		}
		flood(25)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), `"suppressed"`); n != 2 || !strings.HasSuffix(log.String(), `"msg":"suppressed","kind":"drop","reason":"policy_default","suppressed":15}`+"\n") {
			t.Error(log.String())
		}
		flood(13)
		cancel()
		<-ended
		if !strings.HasSuffix(log.String(), `"msg":"suppressed","kind":"drop","reason":"policy_default","suppressed":3}`+"\n") {
			t.Error(log.String())
		}
		if logged, suppressed := r.Counts(); logged != 20 || suppressed != 18 {
			t.Errorf("logged %d, suppressed %d", logged, suppressed)
		}
	})
}

// TestSuppressedOfABatch checks events whose whole batch is asked about before the first
// decision is reported. Events that were suppressed in the meantime do not count as before
// them.
func TestSuppressedOfABatch(t *testing.T) {
	r := NewRecorder(slog.DiscardHandler, tenASecond)
	var reporters []wire.Reporter
	for range 25 {
		if to := r.Wants(nil, filter.Verdict{Reason: verdict.PolicyDefault}, nil); to != nil {
			reporters = append(reporters, to)
		}
	}
	for _, to := range reporters {
		to.Decided(&wire.Decision{Verdict: filter.Verdict{Reason: verdict.PolicyDefault}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Run(ctx)
	if logged, suppressed := r.Counts(); logged != 10 || suppressed != 15 {
		t.Errorf("logged %d, suppressed %d", logged, suppressed)
	}
	for i, e := range r.Last() {
		if e.Suppressed != 0 {
			t.Errorf("event %d has %d suppressed events before it", i, e.Suppressed)
		}
	}
}

// TestSlowLog checks that a log that accepts nothing does not block the wire.
func TestSlowLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &stuckLog{free: make(chan struct{})}
		r := NewRecorder(log, rules.All)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { r.Run(ctx); close(ended) }()
		s := watched(t, r, &filter.Policy{})
		send(s, denied())
		synctest.Wait() // one event is being written
		for range queueLength + 7 {
			send(s, denied())
		}
		if _, suppressed := r.Counts(); suppressed != 7 {
			t.Errorf("%d suppressed", suppressed)
		}
		close(log.free)
		cancel()
		<-ended
		if logged, suppressed := r.Counts(); logged != 0 || suppressed != 7+queueLength+1 {
			t.Errorf("logged %d, suppressed %d by a log that failed", logged, suppressed)
		}
	})
}

// stuckLog blocks until free is closed, and then fails.
type stuckLog struct {
	slog.Handler
	free chan struct{}
}

func (*stuckLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *stuckLog) Handle(context.Context, slog.Record) error {
	<-l.free
	return errors.New("no space left on device")
}

// slowLog needs some time for each line.
type slowLog struct{ bytes.Buffer }

func (l *slowLog) Write(b []byte) (int, error) {
	time.Sleep(lastTimeout / 10)
	return l.Buffer.Write(b)
}

// TestSlowEnd checks that Run ends in time, although more events are queued than a slow log can
// take.
func TestSlowEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log slowLog
		r := NewRecorder(slog.NewJSONHandler(&log, nil), rules.All)
		s := watched(t, r, &filter.Policy{})
		for range 100 {
			send(s, denied())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun := time.Now()
		r.Run(ctx)
		if took := time.Since(begun); took > lastTimeout*3/2 {
			t.Errorf("the end took %v", took)
		}
		logged, suppressed := r.Counts()
		if logged == 0 || logged+suppressed != 100 {
			t.Errorf("logged %d, suppressed %d", logged, suppressed)
		}
		if want := fmt.Sprintf(`"msg":"suppressed","kind":"drop","reason":"policy_default","suppressed":%d}`+"\n", suppressed); !strings.HasSuffix(log.String(), want) {
			t.Errorf("%s does not end with %s", &log, want)
		}
	})
}

// TestEvents checks the logged fields for each kind of decision.
func TestEvents(t *testing.T) {
	tagged := packettest.UDP(client, server, []byte("x"))
	tagged.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 10}, {TPID: 0x8100, TCI: 20}}
	priority := tagged
	priority.Tags = []packet.Tag{{TPID: 0x8100, TCI: 0xe000}, {TPID: 0x8100, TCI: 20}}
	ping := packettest.Datagram{Src: client6.Addr(), Dst: server6.Addr(), Protocol: packet.ProtocolICMPv6, Payload: []byte{128, 0, 0, 0, 0, 0, 0, 0}}
	fragments := packettest.UDP(client6, server6, packettest.Body(2000)).Fragments(1448)
	logging := &filter.Policy{Rules: []filter.Rule{{Name: "logging", Line: 7, Action: verdict.Accept, Log: true}}}
	for _, tt := range []struct {
		name   string
		frame  []byte
		policy *filter.Policy
		want   string
	}{
		{"5-tuple and tags", tagged.Frame(), &filter.Policy{}, `"msg":"drop","from":"inside","verdict":"drop","reason":"policy_default","vlans":[10,20],"protocol":"udp","src":"192.0.2.1","sport":1234,"dst":"198.51.100.1","dport":53,"fragments":0,"bytes":51,"kind":"drop"}`},
		{"priority tag", priority.Frame(), &filter.Policy{}, `"msg":"drop","from":"inside","verdict":"drop","reason":"policy_default","vlans":[20],"protocol":"udp","src":"192.0.2.1","sport":1234,"dst":"198.51.100.1","dport":53,"fragments":0,"bytes":51,"kind":"drop"}`},
		{"icmp", ping.Frame(), &filter.Policy{Default: verdict.Reject}, `"msg":"drop","from":"inside","verdict":"reject","reason":"policy_default","protocol":"icmpv6","src":"2001:db8::1","dst":"2001:db8::2","icmp_type":128,"icmp_code":0,"fragments":0,"bytes":62,"kind":"drop"}`},
		{"first fragment", fragments[0], logging, `"msg":"drop","from":"inside","verdict":"drop","reason":"fragment_mode","protocol":"udp","src":"2001:db8::1","sport":1234,"dst":"2001:db8::2","dport":53,"fragments":1,"identification":0,"offset":0,"more_fragments":true,"bytes":1510,"kind":"drop"}`},
		{"last fragment", fragments[1], logging, `"msg":"drop","from":"inside","verdict":"drop","reason":"fragment_mode","src":"2001:db8::1","dst":"2001:db8::2","fragments":1,"identification":0,"offset":1448,"more_fragments":false,"bytes":622,"kind":"drop"}`},
		{"match", denied(), logging, `"msg":"match","from":"inside","verdict":"accept","rule":"logging","line":7,"protocol":"udp","src":"192.0.2.1","sport":1234,"dst":"198.51.100.1","dport":53,"fragments":0,"bytes":42,"kind":"match"}`},
		{"not IP", packettest.Datagram{}.Ethernet(0x88cc, make([]byte, 40)), &filter.Policy{}, `"msg":"drop","from":"inside","verdict":"drop","reason":"policy_non_ip","ethertype":"0x88cc","fragments":0,"bytes":54,"background":"lldp","kind":"drop"}`},
		{"no frame", []byte{1, 2}, &filter.Policy{}, `"msg":"drop","from":"inside","verdict":"drop","reason":"ethernet_truncated","fragments":0,"bytes":2,"kind":"drop"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			r := NewRecorder(NewHandler(&log, "json", slog.LevelInfo), tenASecond)
			send(watched(t, r, tt.policy), tt.frame)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			r.Run(ctx)
			if !strings.HasSuffix(log.String(), tt.want+"\n") {
				t.Errorf("got\n%s\nwant at the end\n%s", &log, tt.want)
			}
			checkSame(t, log.Bytes(), r.Last())
		})
	}
}

// checkSame checks that the log and /api/status have the same fields of an event, apart from
// those that every log record has.
func checkSame(t *testing.T, line []byte, last []record.Event) {
	t.Helper()
	var logged map[string]any
	if err := json.Unmarshal(line, &logged); err != nil || len(last) != 1 {
		t.Fatal(err, last)
	}
	var kept map[string]any
	text, err := json.Marshal(last[0])
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"time", "level", "msg"} {
		delete(logged, key)
	}
	if delete(kept, "time"); !reflect.DeepEqual(logged, kept) {
		t.Errorf("logged %v, kept %v", logged, kept)
	}
}

// TestBudgets checks that a flood of one subject does not hide the events of others.
func TestBudgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder(slog.DiscardHandler, tenASecond)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { r.Run(ctx); close(ended) }()
		port := func(n uint16) filter.Set[uint16] { return filter.NewSet(filter.Range[uint16]{Lo: n, Hi: n}) }
		s := watched(t, r, &filter.Policy{Rules: []filter.Rule{
			{Name: "noisy", DstPorts: port(1)}, {Name: "rare", DstPorts: port(2)},
			{Name: "few", DstPorts: port(3), Action: verdict.Accept, Limit: filter.Rate{Count: 1, Per: time.Minute}},
		}})
		to := func(port uint16) []byte {
			return packettest.UDP(client, netip.AddrPortFrom(server.Addr(), port), nil).Frame()
		}
		query := packettest.UDP(client, netip.MustParseAddrPort("224.0.0.251:5353"), nil).Frame()
		for range 1000 {
			send(s, to(1), to(9), query)
		}
		send(s, to(2), to(3), to(3), []byte{1})
		synctest.Wait()
		got := map[string]int{}
		for _, e := range r.Last() {
			got[e.Reason+" "+e.Rule+" "+e.OverLimit+" "+e.Background]++
		}
		want := map[string]int{
			"policy_rule noisy  ": 10, "policy_default   ": 10, "policy_default   mdns": 1,
			"policy_rule rare  ": 1, "policy_default  few ": 1, "ethernet_truncated   ": 1,
		}
		if !maps.Equal(got, want) {
			t.Errorf("%v", got)
		}
		if logged, suppressed := r.Counts(); logged != 24 || suppressed != 990+990+999 {
			t.Errorf("logged %d, suppressed %d", logged, suppressed)
		}
		cancel()
		<-ended
	})
}

// TestBudgetsAreBounded checks that more rules than there are budgets share the rate of a few.
func TestBudgetsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder(slog.DiscardHandler, tenASecond)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { r.Run(ctx); close(ended) }()
		p := &filter.Policy{}
		for i := range 2 * slots {
			port := uint16(i + 1)
			p.Rules = append(p.Rules, filter.Rule{Name: fmt.Sprint(i), DstPorts: filter.NewSet(filter.Range[uint16]{Lo: port, Hi: port})})
		}
		s := watched(t, r, p)
		flood := func() (logged uint64) {
			before, _ := r.Counts()
			for i := range p.Rules {
				frame := packettest.UDP(client, netip.AddrPortFrom(server.Addr(), uint16(i+1)), nil).Frame()
				for range 20 {
					send(s, frame)
				}
				synctest.Wait()
			}
			after, _ := r.Counts()
			return after - before
		}
		if n := flood(); n > 10*(slots+1) {
			t.Errorf("%d logged, want at most one budget per slot", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := flood(); n > slots+1 {
			t.Errorf("%d logged in the second after that", n)
		}
		before, _ := r.Counts()
		time.Sleep(2 * idlePeriods * time.Second)
		synctest.Wait()
		send(s, denied(), denied())
		synctest.Wait()
		after, _ := r.Counts()
		if after-before != 2 {
			t.Errorf("%d logged after all subjects were idle", after-before)
		}
		used := 0
		r.budgets[drop].each(func(*budget, *subject) { used++ })
		if used != 2 { // that of the last event, and the shared one
			t.Errorf("%d budgets in use", used)
		}
		cancel()
		<-ended
	})
}

// TestTimeoutSaysWhatIsMissing checks the missing ranges of datagrams that expire.
func TestTimeoutSaysWhatIsMissing(t *testing.T) {
	for _, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate} {
		for name, tt := range map[string]struct {
			send []int
			want string
		}{
			"the middle":    {[]int{2, 0, 4}, `"fragments":3,"identification":7,"missing":["1000-1999","3000-3999"],`},
			"the end":       {[]int{1, 0}, `"fragments":2,"identification":7,"missing":["2000-"],`},
			"all but one":   {[]int{1}, `"fragments":1,"identification":7,"offset":1000,"more_fragments":true,"missing":["0-999","2000-"],`},
			"the beginning": {[]int{4, 3}, `"fragments":2,"identification":7,"missing":["0-2999"],`},
		} {
			if mode == packet.ModeValidate && slices.Contains(tt.send, 0) {
				continue // fragments after the first one are not held
			}
			t.Run(mode.String()+" "+name, func(t *testing.T) {
				var log bytes.Buffer
				r := NewRecorder(NewHandler(&log, "json", slog.LevelInfo), tenASecond)
				end := wire.SideConfig{Lanes: []tun.Lane{tuntest.Discard}, MTU: 1500}
				s := wire.NewStepper(wire.Config{Sides: [verdict.Sides]wire.SideConfig{end, end}, Policy: &filter.Policy{}, Mode: mode, Observer: r,
					Fragments: stack.Options{TimeoutIPv4: time.Second, TimeoutIPv6: time.Second, Memory: 1 << 20, MaxFragments: 64, MaxDatagrams: 64}})
				d := packettest.UDP(client6, server6, packettest.Body(4500-8))
				d.ID = 7
				frames := d.Fragments(1000)
				for _, i := range tt.send {
					s.Forward(verdict.Inside, tun.Frame{Data: frames[i]}, time.Unix(1, 0))
				}
				s.Forward(verdict.Inside, tun.Frame{Data: denied()}, time.Unix(3, 0))
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				r.Run(ctx)
				s.Close()
				if !strings.Contains(log.String(), tt.want) || !strings.Contains(log.String(), `"reason":"fragment_timeout"`) {
					t.Errorf("got\n%s\nwant\n%s", &log, tt.want)
				}
			})
		}
	}
}

// TestSuppressedAllocateNothing checks that a decision beyond the budget allocates nothing.
func TestSuppressedAllocateNothing(t *testing.T) {
	r := NewRecorder(slog.DiscardHandler, filter.Rate{Count: 1, Per: time.Hour})
	s := watched(t, r, &filter.Policy{})
	frame := denied()
	send(s, frame)
	if n := testing.AllocsPerRun(1000, func() { send(s, frame) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
