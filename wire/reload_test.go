package wire

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// halves returns a policy of two rules, the first for source ports below a bound and the second
// for the others. Each of these policies accepts all datagrams, but a mixture of two would not.
func halves(bound uint16) *filter.Policy {
	below := filter.NewSet(filter.Range[uint16]{Lo: 0, Hi: bound - 1})
	rules := []filter.Rule{
		{Name: "below", Action: verdict.Accept, SrcPorts: below},
		{Name: "above", Action: verdict.Accept, SrcPorts: below.Complement()},
	}
	if bound%2 == 0 {
		rules[0], rules[1] = rules[1], rules[0]
	}
	return &filter.Policy{Rules: rules, Stateful: bound%3 == 0}
}

// reloadDuring reloads with pauses until the load ends.
func reloadDuring(t *testing.T, b *Bump, load *errgroup.Group, reloads *atomic.Int64, pause time.Duration) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- load.Wait() }()
	for bound := uint16(1); ; bound = bound*31%65535 + 1 {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		case <-time.After(pause):
			b.Reload(halves(bound))
			reloads.Add(1)
		}
	}
}

// ruleCount returns the number of datagrams that the current rules decided on.
func ruleCount(b *Bump) (n uint64) {
	table := b.Policy()
	for i := range table.Policy().Rules {
		n += table.Count(i).Datagrams
	}
	return n
}

// TestReloadUnderLoad reloads repeatedly while whole packets and fragments flow in both
// directions. All arrive in order, and one rule counts each of them once.
func TestReloadUnderLoad(t *testing.T) {
	ports := [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}
	b := New(Config{Sides: memorySides(ports), Policy: halves(1), Mode: packet.ModeReassemble, Fragments: limits()})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	running := make(chan error, 1)
	go func() { running <- b.Run(ctx) }()

	const size, enough = 100, 20
	var sent, reloads atomic.Int64
	load, _ := errgroup.WithContext(ctx)
	for from := range verdict.Side(verdict.Sides) {
		load.Go(func() error {
			src, dst := client4.Addr(), server4.Addr()
			if from == verdict.Outside {
				src, dst = dst, src
			}
			for n := 0; n < enough || reloads.Load() < enough; n++ {
				var frames [][]byte
				for i := range size {
					body := packettest.Body(20)
					if i%10 == 0 {
						body = packettest.Body(2000)
					}
					binary.BigEndian.PutUint32(body, uint32(n*size+i))
					d := packettest.UDP(netip.AddrPortFrom(src, uint16(n*size+i*7919)), netip.AddrPortFrom(dst, 9), body)
					d.ID = uint32(n*size + i)
					if sent.Add(1); len(body) > 1400 {
						frames = append(frames, d.Fragments(1448)...)
					} else {
						frames = append(frames, d.Frame())
					}
				}
				ports[from].Inject(frames...)
				for i, want := range frames {
					got, err := ports[from.Other()].Next(ctx)
					if err != nil {
						return err
					}
					if string(got.Data) != string(want) {
						t.Errorf("from %v, batch %d: frame %d is not as it arrived", from, n, i)
					}
				}
			}
			return nil
		})
	}
	reloadDuring(t, b, load, &reloads, 0)
	cancel()
	<-running
	if counted := ruleCount(b); counted != uint64(sent.Load()) {
		t.Errorf("the rules counted %d of %d datagrams", counted, sent.Load())
	}
}

// TestCurrentPolicyApplies replaces the policy between the fragments of a datagram. In reassembly,
// the policy at the last fragment applies; in validation, the policy at the first.
func TestCurrentPolicyApplies(t *testing.T) {
	for mode, passes := range map[packet.Mode]bool{packet.ModeReassemble: false, packet.ModeValidate: true} {
		inEachFamily(t, Config{Policy: acceptAll(), Mode: mode}, func(b *testWire, allowed, _ [][]byte) {
			b.send(verdict.Inside, allowed[0], allowed[1])
			b.policy.Store(filter.Compile(&filter.Policy{}, nil))
			b.send(verdict.Inside, allowed[2])
			if passes {
				b.expect(verdict.Outside, allowed...)
			} else {
				b.expect(verdict.Outside)
			}
		})
	}
}

// TestReloadAwaitsVerdicts reloads while a lane judges a batch. Reload returns after the
// verdicts, before the batch was written.
func TestReloadAwaitsVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lane := &script{batch: []tun.Frame{{Data: packettest.UDP(client4, server4, nil).Frame()}}}
		b, d := scripted(lane)
		d.take(&lane.batch[0])
		done := make(chan bool)
		go func() {
			b.Reload(&filter.Policy{})
			close(done)
		}()
		time.Sleep(time.Second)
		select {
		case <-done:
			t.Error("Reload returned while the old policy was in use")
		default:
		}
		d.flush()
		<-done
		d.forward(lane.batch)
		if s := d.counters.Snapshot(); s.Forwarded != 1 || s.Dropped[verdict.PolicyDefault] != 1 {
			t.Errorf("%+v", s)
		}
	})
}
