package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/lastgood"
	"fragwall/cmd/fragwall/internal/status"
	"fragwall/rules"
)

// Startup is the configuration that an instance starts with.
type Startup struct {
	path   string // of the configuration
	config *rules.Config
	token  string         // of the status server
	texts  *lastgood.Copy // copy to save once the instance runs; nil to save none
	broken error          // mistakes in the file, if the saved configuration is used instead
	keeper *keeper        // nil to save nothing
	read   time.Duration  // when reading of the configuration began, by CLOCK_MONOTONIC
}

// keeper saves the last configuration that ran (--last-good). A nil keeper saves nothing.
type keeper struct {
	dir   string
	store *lastgood.Store // nil if the directory cannot be used
	err   error           // why the directory cannot be used
	token string          // of the status server
	at    atomic.Pointer[time.Time]
}

// Load reads the configuration of an instance or, if it is broken, its saved copy in the
// directory lastGood. If lastGood is "", nothing is saved. If neither can be read, Load prints
// the mistakes.
func Load(stderr io.Writer, path, lastGood string) (*Startup, error) {
	read := monotonic()
	s, err := openKeeper(lastGood).start(stderr, path)
	if err == nil {
		s.read = read
	}
	return s, err
}

// NewStartup returns the startup of an instance with a configuration.
func NewStartup(path string, config *rules.Config) (*Startup, error) {
	token, err := status.Token(path, config, rules.ReadWithin)
	return &Startup{path: path, config: config, token: token}, err
}

// Config returns the configuration.
func (s *Startup) Config() *rules.Config { return s.config }

// openKeeper returns a keeper for a directory, or nil for "". A directory that cannot be used
// matters only if the configuration is broken.
func openKeeper(dir string) *keeper {
	if dir == "" {
		return nil
	}
	k := &keeper{dir: dir}
	k.store, k.err = lastgood.Open(dir)
	return k
}

// load reads a configuration, and returns the texts that it was read from if they are to be
// saved.
func (k *keeper) load(path string) (*rules.Config, *lastgood.Copy, error) {
	if k == nil || k.store == nil {
		config, err := rules.Load(path)
		return config, nil, err
	}
	texts, err := lastgood.NewCopy(path)
	if err != nil {
		return nil, nil, err
	}
	config, err := rules.LoadBy(path, texts.Record(rules.ReadWithin))
	if err == nil {
		err = k.addToken(texts, config)
	}
	return config, texts, err
}

// addToken adds the token of the status server, which does not change after the start.
func (k *keeper) addToken(texts *lastgood.Copy, config *rules.Config) error {
	if k == nil || k.token == "" || texts == nil {
		return nil
	}
	return texts.Add(config.Status.TokenFile, k.token)
}

// start reads the configuration of an instance or, if it is broken, its saved copy. If neither
// can be read, it prints the mistakes.
func (k *keeper) start(stderr io.Writer, path string) (*Startup, error) {
	s := &Startup{path: path, keeper: k}
	var err error
	s.config, s.texts, err = k.load(path)
	if err == nil {
		s.token, err = status.Token(path, s.config, rules.ReadWithin)
	}
	if k == nil && err != nil {
		return nil, exit.Printed(stderr, err)
	}
	if err == nil {
		return s, k.begin(s)
	}
	kept, failed := k.restore(path)
	if failed != nil {
		_ = exit.Printed(stderr, err)
		return nil, exit.Printed(stderr, fmt.Errorf("%s: no last good configuration to start with: %w", path, failed))
	}
	kept.broken = err
	return kept, nil
}

// begin records what an instance starts with.
func (k *keeper) begin(s *Startup) error {
	if k == nil {
		return nil
	}
	k.token = s.token
	return k.addToken(s.texts, s.config)
}

// restore returns the saved copy of the configuration at path.
func (k *keeper) restore(path string) (*Startup, error) {
	if k.store == nil {
		return nil, k.err
	}
	kept, err := k.store.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q has no copy of this file", k.dir)
	}
	if err != nil {
		return nil, err
	}
	s := &Startup{path: path, keeper: k}
	if s.config, err = rules.LoadBy(path, kept.Read); err == nil {
		s.token, err = status.Token(path, s.config, kept.Read)
	}
	if err != nil {
		return nil, fmt.Errorf("the copy in %q is broken too: %w", k.dir, err)
	}
	k.at.Store(&kept.Kept)
	return s, k.begin(s)
}

// save saves the texts of the running configuration.
func (k *keeper) save(texts *lastgood.Copy, log *slog.Logger) {
	if k == nil {
		return
	}
	err := k.err
	if err == nil {
		now := time.Now()
		if err = k.store.Save(texts, now); err == nil {
			k.at.Store(&now)
			return
		}
	}
	log.Error("cannot keep a copy of the configuration: a start with a broken file would use an older copy, or fail", "directory", k.dir, "error", err)
}

// kept returns the time of the copy that a start with a broken file would use, or nil if there
// is none.
func (k *keeper) kept() *time.Time {
	if k == nil {
		return nil
	}
	return k.at.Load()
}

// warn logs that the saved configuration is used instead of the file, and why.
func (s *Startup) warn(log *slog.Logger) {
	for line := range strings.SplitSeq(s.broken.Error(), "\n") {
		log.Error("started with the last good configuration, because the configuration file is broken", "file", s.path, "kept", *s.keeper.kept(), "mistake", line)
	}
}
