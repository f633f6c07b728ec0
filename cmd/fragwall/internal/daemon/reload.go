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
	texts  *lastgood.Copy // of the configuration at the start, to be kept once; nil where none is
	keeper *keeper

	reloading sync.Mutex // held while one reads, for which nobody else waits
	mu        sync.Mutex
	// mu guards, and only who reloads changes:
	config   *rules.Config // in force
	since    time.Time
	before   int // reloads of the processes that it goes on from
	reloads  int
	failures int
	read     time.Duration // when the last reload began, by CLOCK_MONOTONIC; 0 before the first
	lastGood bool          // what runs was kept by an earlier instance: the file was broken
	mistake  string        // the first of the last load that failed; "" where none has since
}

// policy reports how the policy in force got there.
func (r *reloader) policy() report.Policy {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.config.Policy
	return report.Policy{
		Generation: r.generation(), Since: r.since, Failures: r.failures, Default: p.Default.String(), Stateful: p.Stateful,
		LastGood: r.lastGood, Kept: r.keeper.kept(), Mistake: r.mistake,
	}
}

// generation is the number of the policy in force: 1 at the start, one more with
// each reload. mu has to be held.
func (r *reloader) generation() int { return 1 + r.before + r.reloads }

// counts returns how many reloads succeeded, and did not.
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

// files are those that the configuration in force was read from.
func (r *reloader) files() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{r.path}, r.config.Files...)
}

// file returns the absolute name of the configuration file.
func (r *reloader) file() control.Outcome {
	path, err := filepath.Abs(r.path)
	if err != nil {
		return control.Outcome{Code: exit.Failed, Text: err.Error()}
	}
	return control.Outcome{Text: path}
}

// reload puts the policy of the file in force, or leaves all as it is, and
// logs which.
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

// keepFirst keeps the configuration that the instance started with, unless that
// is the kept one or there was a reload since.
func (r *reloader) keepFirst() {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	if r.reloads == 0 && !r.lastGood {
		r.keep(r.texts)
	}
}

// keep keeps the texts of the configuration in force. reloading has to be held.
func (r *reloader) keep(texts *lastgood.Copy) {
	r.keeper.save(texts, r.log)
	r.texts = nil
}

// firstLine returns the first of the mistakes in an error.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
