package lanetest

import (
	"errors"
	"sync"
	"testing"

	"fragwall/tun"
)

// holdBeforeRead holds lanes before their first Read, which returns [tun.ErrHeld]. The next one
// reads.
func holdBeforeRead(t *testing.T, r *Rig) {
	for _, l := range r.Lanes {
		for range 2 { // the second has no effect
			if err := l.Hold(); err != nil {
				t.Fatal(err)
			}
		}
	}
	h := r.forwardHeld()
	h.await(t, r)
	h.release(r)
	r.Through(t, [][]byte{Number(0, 60), Number(1, 60)})
	h.stop(t, r)
}

// holdWakesRead holds lanes that wait for frames, several times. Frames that arrive during the
// hold wait in the device, and are read after it.
func holdWakesRead(t *testing.T, r *Rig) {
	h := r.forwardHeld()
	for i := range 3 {
		r.Through(t, [][]byte{Number(i, 60)})
		for _, l := range r.Lanes {
			if err := l.Hold(); err != nil {
				t.Fatal(err)
			}
		}
		h.await(t, r)
		frames := [][]byte{Number(100+i, 60), Number(200+i, 64)}
		for _, f := range frames {
			if err := r.Send(tun.Frame{Data: f}); err != nil {
				t.Fatal(err)
			}
		}
		h.release(r)
		r.Expect(t, frames...)
	}
	h.stop(t, r)
}

// holdUnderLoad holds lanes repeatedly while frames arrive. All frames must pass, once and in
// order.
func holdUnderLoad(t *testing.T, r *Rig) {
	const rounds, burst = 20, 50
	h := r.forwardHeld()
	var frames [][]byte
	for i := range rounds * burst {
		frames = append(frames, Number(i, Lengths[i%len(Lengths)]))
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		for _, f := range frames {
			if err := r.Send(tun.Frame{Data: f}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range rounds {
		r.Expect(t, frames[i*burst:][:burst/2]...)
		for _, l := range r.Lanes {
			if err := l.Hold(); err != nil {
				t.Fatal(err)
			}
		}
		h.await(t, r)
		h.release(r)
		r.Expect(t, frames[i*burst+burst/2:][:burst/2]...)
	}
	sending.Wait()
	h.stop(t, r)
}

// holdThenClose closes lanes that are held and whose Read has returned [tun.ErrHeld].
func holdThenClose(t *testing.T, r *Rig) {
	h := r.forwardHeld()
	for _, l := range r.Lanes {
		if err := l.Hold(); err != nil {
			t.Fatal(err)
		}
	}
	h.await(t, r)
	for _, l := range r.Lanes {
		if err := errors.Join(l.Hold(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	h.release(r)
	h.stop(t, r)
	for _, l := range r.Lanes {
		if err := l.Hold(); err != nil {
			t.Error(err)
		}
		if _, err := l.Read(); !errors.Is(err, tun.ErrClosed) {
			t.Errorf("read of a closed and held lane: %v", err)
		}
	}
}

// held is the goroutines of lanes that forward, and pause when they are held.
type held struct {
	group  sync.WaitGroup
	rests  chan tun.Lane // a lane that pauses
	resume chan struct{} // ends the pause of one lane
	ends   chan error    // the last error of each lane
}

func (r *Rig) forwardHeld() *held {
	h := &held{rests: make(chan tun.Lane, len(r.Lanes)), resume: make(chan struct{}), ends: make(chan error, len(r.Lanes))}
	for _, l := range r.Lanes {
		h.group.Go(func() {
			for {
				frames, err := l.Read()
				if errors.Is(err, tun.ErrHeld) {
					h.rests <- l
					<-h.resume
					continue
				}
				if err != nil {
					h.ends <- err
					return
				}
				if _, err := l.Write(frames); err != nil {
					h.ends <- err
					return
				}
			}
		})
	}
	return h
}

// await waits until all lanes pause.
func (h *held) await(t *testing.T, r *Rig) {
	t.Helper()
	for range r.Lanes {
		select {
		case <-h.rests:
		case err := <-h.ends:
			t.Fatal(err)
		}
	}
}

func (h *held) release(r *Rig) {
	for range r.Lanes {
		h.resume <- struct{}{}
	}
}

func (h *held) stop(t *testing.T, r *Rig) {
	t.Helper()
	for _, l := range r.Lanes {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	h.group.Wait()
	for range r.Lanes {
		if err := <-h.ends; !errors.Is(err, tun.ErrClosed) {
			t.Error(err)
		}
	}
}
