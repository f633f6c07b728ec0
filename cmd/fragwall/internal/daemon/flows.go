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

// State is the directory in which an instance saves its flows between a stop and a start.
type State struct {
	Directory string // "" to save none
	// Given says that the user chose the directory. A failure to use it is then logged as a
	// warning.
	Given bool
	// Discard removes the flows of an earlier instance and saves none, because they would be
	// outdated at the next start.
	Discard bool
}

// flowKeeper saves the flows of a box between a stop and a start, in a file in a private
// directory. The file has the stream of the wire and its SHA-256 checksum. A nil flowKeeper
// saves nothing.
type flowKeeper struct {
	dir  *private.Directory
	name string
	log  *slog.Logger
}

// flowsSuffix is the suffix of files with flows.
const flowsSuffix = ".flows"

// flowsKept is the time after which an unused file with flows is removed. By then all its flows
// have expired: without datagrams, a flow lives no longer than this (tcp_established).
const flowsKept = 5 * 24 * time.Hour

// maxFlowsFile is the maximum size of a file in bytes. A full table takes 184 MB.
const maxFlowsFile = 1 << 30

// openFlowKeeper returns the keeper for the wire between two ports in the network namespace of
// the calling thread.
func openFlowKeeper(s State, inside, outside string, log *slog.Logger) *flowKeeper {
	if s.Directory == "" {
		return nil
	}
	if s.Discard {
		if _, err := os.Stat(s.Directory); err != nil {
			return nil // nothing to discard
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

// removeOld removes files of wires that have not been started again.
func (k *flowKeeper) removeOld(now time.Time) {
	files, _ := k.dir.Files()
	for _, f := range files {
		if strings.HasSuffix(f.Name(), flowsSuffix) && now.Sub(f.ModTime()) > flowsKept {
			_ = k.dir.Remove(f.Name())
		}
	}
}

// restore restores saved flows, and removes the file, so that a killed instance does not leave
// the flows of an earlier one. A file that cannot be read does not prevent the start.
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

// readFlows reads a file after checking its checksum.
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

// save saves the flows of a box that has ended. unwatched says that frames pass without the box
// until the next start.
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
