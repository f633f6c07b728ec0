package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleDelay is the time without changes next to a file before the file is read, because some
// editors and copy programs write in several steps.
const settleDelay = 100 * time.Millisecond

// latestDelay is the maximum delay if there are changes all the time, for example if a log is
// written to the same directory.
const latestDelay = time.Second

// watcher detects changes of the configuration files: by a write, by replacement of a file, or
// by another target of a symbolic link on the path, as in a mounted Kubernetes ConfigMap. It
// watches directories, because a watch on a file does not follow its replacement.
type watcher struct {
	files   func() []string // the configuration file and the files of its sets
	known   string          // state of the files when they were loaded
	broken  bool            // the files as they are could not be loaded
	watcher *fsnotify.Watcher
}

// newWatcher returns a watcher of files in the state in which they were loaded.
func newWatcher(files func() []string) (*watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %q: %w", files(), err)
	}
	watcher := &watcher{files: files, watcher: w}
	watcher.known = watcher.state()
	return watcher, nil
}

// follow watches the directories of the file names, and those of the files that symbolic links
// lead to. If only one of the two exists, a change in it shows when the other one appears.
func (w *watcher) follow() error {
	var errs []error
	for _, path := range w.files() {
		if err := w.watcher.Add(filepath.Dir(path)); err != nil {
			errs = append(errs, fmt.Errorf("watch %q: %w", path, err))
		}
		if target, err := filepath.EvalSymlinks(path); err == nil {
			_ = w.watcher.Add(filepath.Dir(target))
		}
	}
	return errors.Join(errs...)
}

// state returns a text that changes with the content of the files.
func (w *watcher) state() string {
	var b strings.Builder
	for _, path := range w.files() {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintln(&b, path, err)
			continue
		}
		stat := info.Sys().(*syscall.Stat_t)
		fmt.Fprintln(&b, path, stat.Dev, stat.Ino, stat.Size, stat.Mtim, stat.Ctim)
	}
	return b.String()
}

// run calls load after each change, until ctx is done. After load has returned false, any
// change in the watched directories counts, because the configuration may name a file that does
// not exist yet.
func (w *watcher) run(ctx context.Context, log *slog.Logger, load func() bool) {
	defer w.watcher.Close()
	settled := time.NewTimer(0)
	<-settled.C
	var first time.Time // time of the first change that has not settled
	settle := func() {
		if first.IsZero() {
			first = time.Now()
		}
		settled.Reset(max(0, min(settleDelay, latestDelay-time.Since(first))))
	}
	settle() // for changes before the watch began
	loaded := true
	for {
		select {
		case e := <-w.watcher.Events:
			if e.Op != fsnotify.Chmod {
				settle()
			}
		case err := <-w.watcher.Errors:
			log.Warn("changes of the configuration may have been missed", "error", err)
			settle()
		case <-settled.C:
			first = time.Time{}
			if err := w.follow(); err != nil {
				log.Warn("changes of the configuration are not noticed from now on", "error", err)
			}
			if state := w.state(); state != w.known || !loaded {
				w.known = state
				loaded = load()
				_ = w.follow() // a set may be new and in another directory
			} else if w.broken {
				loaded, w.broken = false, false
			}
		case <-ctx.Done():
			return
		}
	}
}
