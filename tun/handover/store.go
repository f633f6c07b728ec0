package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Store keeps the state of one NIC of one namespace in a file, for the process that starts
// after one was killed. The file has to outlive the process, but not the namespace.
type Store struct {
	directory, nic string
	namespace      Namespace
	path           string // path of the file
}

// NewStore returns the store of a NIC of the calling thread's namespace. Several
// namespaces may share a directory.
func NewStore(directory, nic string) (*Store, error) {
	n, err := CurrentNamespace()
	if err != nil {
		return nil, err
	}
	s := &Store{directory: directory, nic: nic, namespace: n}
	s.path = filepath.Join(directory, nic+s.suffix())
	return s, nil
}

// suffix returns the end of the file names of a namespace.
func (s *Store) suffix() string { return fmt.Sprintf("@%d.json", s.namespace.ID) }

// Path returns the path of the file.
func (s *Store) Path() string { return s.path }

// Load returns the stored state, or nil if there is none of this namespace. If the NIC
// was renamed, the state is stored under its old name.
func (s *Store) Load() (*State, error) {
	state, err := s.read(s.path)
	if state != nil || err != nil {
		return state, err
	}
	link, err := rtnetlink{}.linkByName(s.nic)
	if err != nil {
		return nil, nil // no device has the name
	}
	files, err := os.ReadDir(s.directory)
	if err != nil {
		return nil, nil // nothing was ever stored
	}
	for _, f := range files {
		path := filepath.Join(s.directory, f.Name())
		if !strings.HasSuffix(path, s.suffix()) {
			continue
		}
		if state, err := s.read(path); err == nil && state != nil && state.Index == link.Attrs().Index {
			s.path = path
			return state, nil
		}
	}
	return nil, nil
}

// read returns the state in a file, or nil if it is not of this namespace.
func (s *Store) read(path string) (*State, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	state := &State{}
	if err := json.Unmarshal(b, state); err != nil {
		return nil, fmt.Errorf("read state %q: %w", path, err)
	}
	if state.Namespace != s.namespace {
		return nil, nil // of a namespace that no longer exists
	}
	return state, nil
}

// Save stores a state. When it returns, either the new state or the old one is on the
// disk.
func (s *Store) Save(state *State) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save state: %w", err)
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

// draft is the name of the file until it is complete.
func (s *Store) draft() string { return s.path + ".new" }

// SetAside renames the file of a state whose NIC will not return, so that another state
// can be stored, and returns the new path.
func (s *Store) SetAside() (path string, err error) {
	path = s.path + ".orphaned"
	if err := os.Rename(s.path, path); err != nil {
		return "", fmt.Errorf("rename state file: %w", err)
	}
	return path, nil
}

// Remove removes the stored state.
func (s *Store) Remove() error {
	defer func() { s.path = filepath.Join(s.directory, s.nic+s.suffix()) }()
	for _, path := range []string{s.draft(), s.path} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove state file: %w", err)
		}
	}
	return nil
}
