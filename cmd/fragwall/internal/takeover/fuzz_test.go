package takeover

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// encode returns messages as a process sends them.
func encode(kinds ...string) []byte {
	var all []byte
	for _, kind := range kinds {
		text := []byte(`{"kind":"` + kind + `"}`)
		all = append(binary.BigEndian.AppendUint32(append(all, typeMessage), uint32(len(text))), text...)
	}
	return all
}

// speak sends the input of a fuzz target with a number of descriptors attached, and reads all
// replies.
func speak(t *testing.T, c *net.UnixConn, sent []byte, files int) (done <-chan struct{}) {
	t.Helper()
	ended := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, c); close(ended) }()
	go func() {
		rights := slices.Repeat([]int{int(os.Stdin.Fd())}, files)
		if files > 0 {
			n, _, _ := c.WriteMsgUnix(sent[:min(len(sent), 1)], unix.UnixRights(rights...), nil)
			sent = sent[n:]
		}
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	return ended
}

// FuzzGive sends arbitrary bytes as the new process. The old process must continue, unless the
// bytes are a complete take-over.
func FuzzGive(f *testing.F) {
	all := encode(kindCopy, kindHold, kindTake, kindRunning)
	f.Add(all)
	f.Add(encode(kindCopy, kindHold, kindTake))
	f.Add(encode(kindCopy, kindTake, kindHold, kindRunning))
	f.Add(encode(kindRunning))
	f.Add(encode(kindCopy, kindHold, kindKept))
	f.Add(all[:len(all)/2])
	f.Add([]byte{typeMessage, 255, 255, 255, 255})
	f.Add([]byte{typeChunk, 0, 0, 0, 1, 'x'})
	f.Add([]byte{typeFiles, 0, 0, 0, 0, typeFiles, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := newTrial(t, true)
		before := descriptors(t)
		ended := speak(t, r.next, sent, 1)
		err := Give(t.Context(), r.old, json.RawMessage(`"request"`), r.giver)
		<-ended
		was := r.giver.was()
		held, released, left := strings.Contains(was, "hold"), strings.HasSuffix(was, "release"), strings.HasSuffix(was, "leave")
		if (err == nil) != left || held && released == left {
			t.Errorf("%v, and the calls of the old process were %q", err, was)
		}
		if left && was != "offer copy hold save leave" {
			t.Errorf("the calls of the old process were %q", was)
		}
		if after := descriptors(t); after != before-1-len(r.giver.files) {
			t.Errorf("%d descriptors, want %d", after, before-1-len(r.giver.files))
		}
	})
}

// owner is a taker that discards the state.
type owner struct{ steps }

func (o *owner) Prepare(_ json.RawMessage, files []int) error {
	for _, fd := range files {
		_ = unix.Close(fd)
	}
	return o.do("prepare")
}

func (o *owner) Copy(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return errors.Join(err, o.do("copy"))
}

func (o *owner) Restore(_ json.RawMessage, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return errors.Join(err, o.do("save"))
}

// FuzzTake sends arbitrary bytes and a number of descriptors as the old process. The new
// process must run only if it received everything.
func FuzzTake(f *testing.F) {
	offer := []byte(`m` + "\x00\x00\x00\x1a" + `{"kind":"offer","files":1}`)
	state := []byte{typeChunk, 0, 0, 0, 1, 'x', typeEnd, 0, 0, 0, 0}
	whole := slices.Concat(offer, state, encode(kindHeld), state, encode(kindGo))
	for _, files := range []uint8{0, 1, 2} {
		f.Add(whole, files)
	}
	f.Add(whole[:len(whole)/2], uint8(1))
	f.Add(slices.Concat(offer, encode(kindHeld), state), uint8(1))
	f.Add(slices.Concat(offer, state, state, encode(kindHeld, kindGo)), uint8(1))
	f.Add(slices.Concat(offer, []byte{typeChunk, 255, 255, 255, 255, 'x'}), uint8(1))
	f.Add(slices.Concat(offer, encode(kindKept)), uint8(1))
	f.Add([]byte(`m`+"\x00\x00\x00\x1b"+`{"kind":"offer","files":-1}`), uint8(1))
	f.Fuzz(func(t *testing.T, sent []byte, files uint8) {
		old := limits
		defer func() { limits = old }()
		limits.Death = time.Millisecond
		oldEnd, newEnd := pair(t)
		before := descriptors(t)
		ended := speak(t, oldEnd, sent, int(files%8))
		o := &owner{}
		if err := Take(context.Background(), newEnd, o); err == nil && o.was() != "prepare copy save" {
			t.Errorf("the new process runs, and its calls were %q", o.was())
		}
		<-ended
		if after := descriptors(t); after != before-1 {
			t.Errorf("%d descriptors, want %d", after, before-1)
		}
	})
}
