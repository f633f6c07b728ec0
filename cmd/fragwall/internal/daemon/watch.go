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

// settleDelay is how long nothing has to happen beside a file before it is
// read: some editors and copies write it in several steps.
const settleDelay = 100 * time.Millisecond

// latestDelay is how long it is put off while something happens all the time,
// as where a log is written beside it.
const latestDelay = time.Second

// watcher notices when what is in a configuration may have changed: by a write,
// by another file in its place, or by another target of a symbolic link on the
// way to it, as Kubernetes changes what it mounts of a ConfigMap. It watches
// directories, for a watched file that is replaced is not the one that is read.
type watcher struct {
	files   func() []string // the configuration, and those that its sets were read from
	known   string          // their state when they were loaded
	broken  bool            // they could not be loaded as they are
	watcher *fsnotify.Watcher
}

// newWatcher returns a watcher of files that are as they were loaded.
func newWatcher(files func() []string) (*watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %q: %w", files(), err)
	}
	watcher := &watcher{files: files, watcher: w}
	watcher.known = watcher.state()
	return watcher, nil
}

// follow watches the directories of the files' names and of the files
// themselves, where links lead. Where one is not there now, the other shows when
// it is.
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

// state changes with what is in the files.
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

// run calls load after each change, until ctx is done. Where load reports
// false, whatever happens beside the files counts as one, too: they may name
// another file that is only coming.
func (w *watcher) run(ctx context.Context, log *slog.Logger, load func() bool) {
	defer w.watcher.Close()
	settled := time.NewTimer(0)
	<-settled.C
	var first time.Time // of what has yet to settle
	settle := func() {
		if first.IsZero() {
			first = time.Now()
		}
		settled.Reset(max(0, min(settleDelay, latestDelay-time.Since(first))))
	}
	settle() // for what changed before there was a watch
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
				_ = w.follow() // a set may be new, and elsewhere
			} else if w.broken {
				loaded, w.broken = false, false
			}
		case <-ctx.Done():
			return
		}
	}
}
