package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleDelay is how long nothing has to happen to a file before it is read:
// some editors and copies write it in several steps.
const settleDelay = 100 * time.Millisecond

// watcher tells when what is in a file may have changed: by a write, by another
// file in its place, or by another target of a symbolic link on the way to it,
// as Kubernetes changes what it mounts of a ConfigMap. It watches directories,
// for a watched file that is replaced is not the one that is read. So a change
// beside the file, as of a set's, counts too.
type watcher struct {
	path    string
	watcher *fsnotify.Watcher
}

func newWatcher(path string) (*watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %q: %w", path, err)
	}
	return &watcher{path, w}, nil
}

// follow watches the directories of the file's name and of the file itself,
// where a link leads. Where one is not there now, the other tells when it is.
func (w *watcher) follow() error {
	err := w.watcher.Add(filepath.Dir(w.path))
	if err != nil {
		return fmt.Errorf("watch %q: %w", w.path, err)
	}
	if target, err := filepath.EvalSymlinks(w.path); err == nil {
		_ = w.watcher.Add(filepath.Dir(target))
	}
	return nil
}

// run calls changed after each change, until ctx is done.
func (w *watcher) run(ctx context.Context, log *slog.Logger, changed func()) {
	defer w.watcher.Close()
	settled := time.NewTimer(0)
	<-settled.C
	for {
		select {
		case e := <-w.watcher.Events:
			if e.Op != fsnotify.Chmod {
				settled.Reset(settleDelay)
			}
		case err := <-w.watcher.Errors:
			log.Warn("changes of the configuration may have been missed", "error", err)
			settled.Reset(settleDelay)
		case <-settled.C:
			if err := w.follow(); err != nil {
				log.Warn("changes of the configuration will be missed", "error", err)
			}
			changed()
		case <-ctx.Done():
			return
		}
	}
}
