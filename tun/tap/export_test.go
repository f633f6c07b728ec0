package tap

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
)

// again opens a TAP and hands it over, as to another process.
func again(c tun.Config) (*TAP, error) {
	t, err := Open(c)
	if err != nil {
		return nil, err
	}
	from, err := duplicate(t)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	taken, err := Import(c, from)
	return taken, errors.Join(err, t.Close())
}

// duplicate exports a TAP with duplicated descriptors.
func duplicate(t *TAP) (tun.Exported, error) {
	from, err := t.Export()
	if err != nil {
		return from, err
	}
	files := from.Files
	from.Files = nil
	for _, fd := range files {
		fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return from, err
		}
		from.Files = append(from.Files, fd)
	}
	return from, nil
}

// TestImportedLanes sends frames through TAPs that were handed over.
func TestImportedLanes(t *testing.T) {
	lanetest.TestLanes(t, lanetest.OnPorts(again))
}

// TestImport hands a TAP over: it stays the same device, the filter continues to count, and the
// device disappears once both are closed.
func TestImport(t *testing.T) {
	c := tun.Config{Name: "fw-in", MTU: 1400, Queues: 3, Offload: true, Fragments: 600}
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		first, err := Open(c)
		if err != nil {
			return err
		}
		q := first.queue(1)
		if q.own != nil {
			q.own.In, q.own.Taken = 12<<programQueueInQUEUED_SHIFT, 7
		}
		q.Credit(lanetest.Client4.Addr())
		from, err := duplicate(first)
		if err != nil {
			return err
		}
		// The MTU in the configuration changed in the meantime.
		second, err := Import(tun.Config{Name: c.Name, MTU: 9000, Offload: true, Fragments: 600}, from)
		if err != nil {
			return err
		}
		next := second.queue(1)
		q.Take(3) // by the lane of the first TAP
		next.Take(2)
		if err := first.Close(); err != nil {
			return err
		}
		if second.index != first.index || second.config != c || second.threaded != first.threaded || second.takesUDP != first.takesUDP {
			t.Errorf("%+v became %+v", first, second)
		}
		if next.sheddingMemory != nil && (next.Taken() != 12 || next.key != hashKey) {
			t.Errorf("%d frames were taken, and the key is %d", next.Taken(), next.key)
		}
		if first.fallbacks == nil && (second.rings == nil || len(second.rings.records) != 3*128) {
			t.Errorf("the rings are %+v", second.rings)
		}
		if err := second.SetMTU(1300); err != nil {
			t.Error(err)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		if _, err := netlink.LinkByName(c.Name); err == nil {
			t.Error("the device still exists")
		}
		return nil
	})
}

// TestImportOther imports TAPs that differ from their description: nothing stays open.
func TestImportOther(t *testing.T) {
	c := tun.Config{Name: "fw-in", MTU: 1400, Queues: 2}
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		held, err := Open(c)
		if err != nil {
			return err
		}
		defer held.Close()
		before := lanetest.Descriptors(t)
		for _, tt := range []struct {
			change func(*tun.Config, *tun.Exported)
			want   string
		}{
			{func(c *tun.Config, _ *tun.Exported) { c.Name = "fw-out" }, `take over tap "fw-out": its name is now "fw-in"`},
			{func(c *tun.Config, _ *tun.Exported) { c.Offload = true }, `take over tap "fw-in": offload is false`},
			{func(_ *tun.Config, e *tun.Exported) { e.State = []byte("{") }, `take over tap "fw-in": unexpected end of JSON input`},
			{func(_ *tun.Config, e *tun.Exported) { e.State = []byte("{}") }, `descriptors, want 0`},
		} {
			c := c
			from, err := duplicate(held)
			if err != nil {
				return err
			}
			tt.change(&c, &from)
			if _, err := Import(c, from); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		}
		if after := lanetest.Descriptors(t); after != before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
		return nil
	})
}
