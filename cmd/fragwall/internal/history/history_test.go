package history

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"fragwall/packet/verdict"
	"fragwall/wire"
)

// traffic is a box with a known number of frames per second.
type traffic struct {
	began time.Time
	burst int // the second with ten times as many
}

func (b traffic) read(now time.Time) Sample {
	var s Sample
	for n := range int(now.Sub(b.began) / time.Second) {
		times := uint64(1)
		if n == b.burst {
			times = 10
		}
		s.Sides[verdict.Inside].Forwarded += 2 * times
		s.Sides[verdict.Inside].ForwardedBytes += 1000 * times
		s.Sides[verdict.Outside].Dropped[verdict.PolicyDefault] += 3 * times
	}
	s.Time, s.Missed, s.Datagrams, s.Bytes, s.Flows = now, map[verdict.Side]uint64{verdict.Outside: s.Sides[verdict.Inside].Forwarded}, 7, 4096, 5
	return s
}

// TestHistory checks that samples are added up to points of five seconds.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := &History{}, t.Context()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		began := time.Now()
		go h.Run(ctx, traffic{began: began, burst: 6}.read)
		time.Sleep(14*time.Second + time.Millisecond)
		synctest.Wait()
		points := h.Since(time.Time{})
		if len(points) != 2 {
			t.Fatalf("%d points after 14 s", len(points))
		}
		for i, want := range []struct {
			times uint64 // number of seconds' worth of frames
			max   float64
		}{{5, 1000}, {14, 10000}} {
			p := points[i]
			in, out := p.Sides["inside"], p.Sides["outside"]
			if !p.Time.Equal(began.Add(time.Duration(i+1)*Resolution)) || p.Seconds != 5 || p.MaxDatagrams != 7 || p.MaxBytes != 4096 || p.MaxFlows != 5 {
				t.Errorf("point %d: %+v", i, p)
			}
			if in.Forwarded != 2*want.times || in.Received != 2*want.times || in.ForwardedBytes != 1000*want.times || in.MinRate != 1000 || in.MaxRate != want.max || len(in.Dropped) != 0 {
				t.Errorf("point %d, inside: %+v", i, in)
			}
			if out.Received != 3*want.times || out.Dropped["policy_default"] != 3*want.times || len(out.Dropped) != 1 || out.Missed != 2*want.times {
				t.Errorf("point %d, outside: %+v", i, out)
			}
		}
		if later := h.Since(points[0].Time); len(later) != 1 || !later[0].Time.Equal(points[1].Time) {
			t.Errorf("since the first: %+v", later)
		}
	})
}

// TestBound checks that at most an hour is kept.
func TestBound(t *testing.T) {
	h, began := &History{}, time.Unix(1000, 0)
	sample := func(n int) Sample {
		s := Sample{Time: began.Add(time.Duration(n) * every)}
		s.Sides[verdict.Inside].Forwarded = uint64(n)
		return s
	}
	for n := range 2*3600 + 3 {
		h.add(sample(n))
	}
	points := h.Since(time.Time{})
	if len(points) != Kept || len(h.points) != Kept || cap(h.points) > 2*Kept {
		t.Fatalf("%d points, room for %d", len(points), cap(h.points))
	}
	if first, last := points[0].Time, points[Kept-1].Time; last.Sub(first) != time.Hour-Resolution || !last.Equal(began.Add(2*time.Hour)) {
		t.Errorf("from %v to %v", first, last)
	}
	for i, p := range points {
		if i > 0 && p.Time.Sub(points[i-1].Time) != Resolution || p.Sides["inside"].Forwarded != 5 {
			t.Errorf("point %d: %+v", i, p)
		}
	}
}

// TestGap checks a pause of the process, a clock that is set back, and a device counter that is
// reset.
func TestGap(t *testing.T) {
	h, began := &History{}, time.Unix(1000, 0)
	at := func(s int, bytes, missed uint64) Sample {
		return Sample{
			Time: began.Add(time.Duration(s) * time.Second), Missed: map[verdict.Side]uint64{verdict.Inside: missed},
			Sides: [verdict.Sides]wire.Snapshot{{ForwardedBytes: bytes}},
		}
	}
	h.add(at(0, 0, 50))
	h.add(at(60, 6000, 10)) // one minute later
	h.add(at(30, 7000, 20)) // half a minute earlier
	h.add(at(35, 8000, 30))
	points := h.Since(time.Time{})
	if len(points) != 2 {
		t.Fatalf("%+v", points)
	}
	if p := points[0]; p.Seconds != 60 || p.Sides["inside"].MaxRate != 100 || p.Sides["inside"].Missed != 0 {
		t.Errorf("%+v", p)
	}
	if p := points[1]; p.Seconds != 5 || p.Sides["inside"].ForwardedBytes != 1000 || p.Sides["inside"].Missed != 10 {
		t.Errorf("%+v", p)
	}
}

// BenchmarkSince encodes a full history.
func BenchmarkSince(b *testing.B) {
	h := &History{}
	for n := range 3700 {
		s := Sample{Time: time.Unix(int64(n), 0)}
		for reason := range 5 {
			s.Sides[0].Dropped[reason+1] = uint64(n)
		}
		h.add(s)
	}
	for b.Loop() {
		if _, err := json.Marshal(h.Since(time.Time{})); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRestore checks that a second history continues with the points of the first.
func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keep := func(h *History, d time.Duration, began time.Time) []Point {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go h.Run(ctx, traffic{began: began, burst: 6}.read)
			time.Sleep(d + time.Millisecond)
			synctest.Wait()
			return h.Since(time.Time{})
		}
		began := time.Now()
		before := keep(&History{}, 2*time.Hour, began)
		text, err := json.Marshal(before)
		var points []Point
		if err == nil {
			err = json.Unmarshal(text, &points)
		}
		if err != nil {
			t.Fatal(err)
		}
		var after History
		after.Restore(append(points, points...)) // as from a version that keeps more
		after.Restore(points)
		if got, err := json.Marshal(after.Since(time.Time{})); err != nil || string(got) != string(text) {
			t.Errorf("%v: %d bytes of points, want these %d:\n%.500s\n%.500s", err, len(got), len(text), got, text)
		}
		later := keep(&after, 2*Resolution, began)
		if len(later) != Kept || !later[Kept-1].Time.After(before[Kept-1].Time) || !later[0].Time.Equal(before[2].Time) {
			t.Errorf("%d points from %v to %v", len(later), later[0].Time, later[len(later)-1].Time)
		}
	})
}
