package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Store keeps the state of one NIC of one namespace in a file, for the process
// that comes after one that was killed. It has to outlive the process, but not
// the namespace.
type Store struct {
	path      string
	namespace Namespace
}

// NewStore returns the store of a NIC of the calling thread's namespace, in a
// directory that namespaces may share.
func NewStore(directory, nic string) (*Store, error) {
	n, err := CurrentNamespace()
	if err != nil {
		return nil, err
	}
	return &Store{filepath.Join(directory, fmt.Sprintf("%s@%d.json", nic, n.ID)), n}, nil
}

// Path is the file's.
func (s *Store) Path() string { return s.path }

// Load returns the state that is kept; nil if there is none of this namespace.
func (s *Store) Load() (*State, error) {
	b, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	state := &State{}
	if err := json.Unmarshal(b, state); err != nil {
		return nil, fmt.Errorf("read state %q: %w", s.path, err)
	}
	if state.Namespace != s.namespace {
		return nil, nil // of a namespace that is no more
	}
	return state, nil
}

// Save keeps a state. When it returns, the state is on the disk, or what was
// kept before still is.
func (s *Store) Save(state *State) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep state: %w", err)
		}
	}()
	b, err := json.MarshalIndent(state, "", "\t")
	if err != nil {
		return err
	}
	directory := filepath.Dir(s.path)
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(s.draft(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(s.draft()))
	}
	return os.Rename(s.draft(), s.path)
}

// draft is the file's name until all of it is written.
func (s *Store) draft() string { return s.path + ".new" }

// Remove forgets the state.
func (s *Store) Remove() error {
	for _, path := range []string{s.draft(), s.path} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget state: %w", err)
		}
	}
	return nil
}
