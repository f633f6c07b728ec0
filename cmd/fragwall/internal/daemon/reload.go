package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/lastgood"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/rules"
)

// reloader reads the configuration of a running box again.
type reloader struct {
	path   string
	apply  func(*rules.Config)
	log    *slog.Logger
	texts  *lastgood.Copy // of the configuration at the start, to be saved once; nil if none is saved
	keeper *keeper

	reloading sync.Mutex // held during a reload; only reloads wait for it
	mu        sync.Mutex
	// mu guards the following fields, which only a reload changes:
	config   *rules.Config // configuration in force
	since    time.Time
	before   int // number of reloads of previous processes
	reloads  int
	failures int
	read     time.Duration // when the last reload began, by CLOCK_MONOTONIC; 0 before the first
	lastGood bool          // the configuration in force is a copy of an earlier instance, because the file was broken
	mistake  string        // first mistake of the last load if it failed; otherwise ""
}

// policy returns the state of the policy in force.
func (r *reloader) policy() report.Policy {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.config.Policy
	return report.Policy{
		Generation: r.generation(), Since: r.since, Failures: r.failures, Default: p.Default.String(), Stateful: p.Stateful,
		LastGood: r.lastGood, Kept: r.keeper.kept(), Mistake: r.mistake,
	}
}

// generation returns the generation of the policy in force: 1 at the start, incremented by each
// reload. The caller holds mu.
func (r *reloader) generation() int { return 1 + r.before + r.reloads }

// counts returns the numbers of successful and of failed reloads.
func (r *reloader) counts() (reloads, failures int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.before + r.reloads, r.failures
}

// reloadedSince reports whether a reload began after a time by CLOCK_MONOTONIC.
func (r *reloader) reloadedSince(t time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read > t
}

// goOn continues the counts of another process.
func (r *reloader) goOn(reloads, failures int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before, r.failures = reloads, failures
}

// inForce returns the configuration in force.
func (r *reloader) inForce() *rules.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.config
}

// files returns the files that the configuration in force was read from.
func (r *reloader) files() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{r.path}, r.config.Files...)
}

// file returns the absolute path of the configuration file.
func (r *reloader) file() control.Outcome {
	path, err := filepath.Abs(r.path)
	if err != nil {
		return control.Outcome{Code: exit.Failed, Text: err.Error()}
	}
	return control.Outcome{Text: path}
}

// reload puts the policy of the file in force. If the file is invalid, it changes nothing. It
// logs the result.
func (r *reloader) reload() control.Outcome {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	r.mu.Lock()
	r.read = monotonic()
	r.mu.Unlock()
	next, texts, err := r.keeper.load(r.path)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w\n%s: a running instance reads only files in the directories that it used at the start, and only files that its user may read without capabilities; move the file there, or restart", err, r.path)
	}
	if err == nil {
		if keys := r.config.Fixed(next); len(keys) > 0 {
			err = fmt.Errorf("%s: cannot change while fragwall runs: %s; restart it, or restore the old values", r.path, strings.Join(keys, ", "))
		}
	}
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			r.log.Error("reload failed: the old rules stay in force", "mistake", line)
		}
		r.mu.Lock()
		r.failures++
		r.mistake = firstLine(err)
		r.mu.Unlock()
		return control.Outcome{Code: exit.Usage, Text: err.Error()}
	}
	changes := r.config.Changes(next)
	r.apply(next)
	r.mu.Lock()
	r.config, r.since = next, time.Now()
	r.reloads++
	r.lastGood, r.mistake = false, ""
	generation := r.generation()
	r.mu.Unlock()
	r.log.Info("reloaded", "generation", generation, "changes", changes.String(), "policy", next.Summary())
	r.keep(texts)
	return control.Outcome{Text: fmt.Sprintf("reloaded %s: %s\ngeneration %d: %s", r.path, next.Summary(), generation, changes)}
}

// keepFirst saves the configuration that the instance started with, unless that is the saved
// one or there was a reload.
func (r *reloader) keepFirst() {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	if r.reloads == 0 && !r.lastGood {
		r.keep(r.texts)
	}
}

// keep saves the texts of the configuration in force. The caller holds reloading.
func (r *reloader) keep(texts *lastgood.Copy) {
	r.keeper.save(texts, r.log)
	r.texts = nil
}

// firstLine returns the first mistake in an error.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
