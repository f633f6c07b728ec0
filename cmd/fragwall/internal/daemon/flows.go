package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/private"
	"fragwall/tun/handover"
	"fragwall/wire"
)

// State says where an instance keeps its flows over a stop and a start.
type State struct {
	Directory string // "" keeps none
	// Given says that somebody asked for this directory: it is worth a warning if it
	// can't be used.
	Given bool
	// Discard removes the flows of an earlier instance, and keeps none: they would be out of
	// date at the next start.
	Discard bool
}

// flowKeeper keeps the flows of a box over a stop and a start, in a file of a private
// directory: the wire's stream and its SHA-256. A nil one keeps nothing.
type flowKeeper struct {
	dir  *private.Directory
	name string
	log  *slog.Logger
}

// flowsSuffix ends the names of files with flows.
const flowsSuffix = ".flows"

// flowsKept is for how long a file with flows is kept that no instance reads: after that no
// flow in it lives, as none does without a datagram for longer (tcp_established).
const flowsKept = 5 * 24 * time.Hour

// maxFlowsFile is the size of a file in bytes above which it is not read. A full table takes 184 MB.
const maxFlowsFile = 1 << 30

// openFlowKeeper returns the keeper of the wire between two ports in the network namespace
// of the calling thread.
func openFlowKeeper(s State, inside, outside string, log *slog.Logger) *flowKeeper {
	if s.Directory == "" {
		return nil
	}
	if s.Discard {
		if _, err := os.Stat(s.Directory); err != nil {
			return nil // there is nothing to discard
		}
	}
	k := &flowKeeper{log: log}
	namespace, err := handover.CurrentNamespace()
	if err == nil {
		k.name = fmt.Sprintf("%s-%s@%d%s", inside, outside, namespace.ID, flowsSuffix)
		k.dir, err = private.Open(s.Directory)
	}
	if err != nil {
		level := slog.LevelInfo
		if s.Given {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "cannot keep flows over a restart", "directory", s.Directory, "error", err)
		return nil
	}
	k.removeOld(time.Now())
	if s.Discard {
		if err := errors.Join(k.dir.Remove(k.name), k.dir.Close()); err != nil {
			log.Warn("cannot remove the flows of an earlier instance", "directory", s.Directory, "file", k.name, "error", err)
		}
		return nil
	}
	return k
}

// removeOld removes what was kept of wires that did not come back.
func (k *flowKeeper) removeOld(now time.Time) {
	files, _ := k.dir.Files()
	for _, f := range files {
		if strings.HasSuffix(f.Name(), flowsSuffix) && now.Sub(f.ModTime()) > flowsKept {
			_ = k.dir.Remove(f.Name())
		}
	}
}

// restore has a box go on with the flows that were kept, and removes them: an instance that
// is killed must not leave flows of an earlier one. What can't be read does not prevent
// the start.
func (k *flowKeeper) restore(b *box.Box) {
	if k == nil {
		return
	}
	f, err := k.dir.Read(k.name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = readFlows(f, b)
		_ = f.Close()
	}
	if err != nil {
		k.log.Warn("cannot restore flows", "directory", k.dir.Path(), "file", k.name, "error", err)
	} else {
		k.log.Info("flows restored", "flows", b.Policy().Flows())
	}
	if err := k.dir.Remove(k.name); err != nil {
		k.log.Warn("cannot remove the file of restored flows", "directory", k.dir.Path(), "file", k.name, "error", err)
	}
}

// readFlows reads a file, once its sum is known to be right.
func readFlows(f io.ReadSeeker, b *box.Box) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	stream := size - sha256.Size
	switch {
	case stream < 0:
		return errors.New("damaged: too short")
	case size > maxFlowsFile:
		return errors.New("damaged: too long")
	}
	sum, want := sha256.New(), make([]byte, sha256.Size)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.CopyN(sum, f, stream); err != nil {
		return err
	}
	if _, err := io.ReadFull(f, want); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return errors.New("damaged: wrong checksum")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return b.Restore(bufio.NewReaderSize(io.LimitReader(f, stream), 1<<16))
}

// save keeps the flows of a box that has ended. Where frames pass without the box until
// the next start, unwatched is set.
func (k *flowKeeper) save(b *box.Box, unwatched bool) {
	if k == nil {
		return
	}
	flows := b.Policy().Flows()
	if flows == 0 {
		return
	}
	parts := wire.AllFlows
	if unwatched {
		parts |= wire.Unwatched
	}
	err := k.dir.Replace(k.name, func(to io.Writer) error {
		sum := sha256.New()
		w := bufio.NewWriterSize(io.MultiWriter(to, sum), 1<<16)
		if err := errors.Join(b.Save(w, parts), w.Flush()); err != nil {
			return err
		}
		_, err := to.Write(sum.Sum(nil))
		return err
	})
	if err != nil {
		k.log.Warn("cannot keep flows over a restart", "directory", k.dir.Path(), "error", err)
		return
	}
	k.log.Info("flows are kept", "flows", flows)
}
