package private

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	directoryMode = 0o700
	fileMode      = 0o600
	writable      = 0o022 // by other users
)

// Directory is a directory that only this user can write to.
type Directory struct {
	path string
	root *os.Root // the path may refer to another directory later
	self *os.File // for fsync
}

// Open opens a directory, and creates it if it does not exist. It fails if other users can
// write to the directory.
func Open(path string) (*Directory, error) {
	if err := os.MkdirAll(path, directoryMode); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &Directory{path: path, root: root}
	if d.self, err = root.Open("."); err == nil {
		err = d.trust()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Path returns the path with which the directory was opened.
func (d *Directory) Path() string { return d.path }

// Close closes the directory.
func (d *Directory) Close() error {
	if d.self != nil {
		_ = d.self.Close()
	}
	return d.root.Close()
}

// trust checks that no other user can write to the directory.
func (d *Directory) trust() error {
	info, err := d.self.Stat()
	if err != nil {
		return err
	}
	if err := own(info); err != nil {
		return fmt.Errorf("directory %q: %w; want mode 0700", d.path, err)
	}
	return nil
}

// TrustPath checks that no other user can replace the directory by another one.
func (d *Directory) TrustPath() error {
	if link, err := os.Lstat(d.path); err == nil && link.Mode()&fs.ModeSymlink != 0 {
		if owner := link.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
			return fmt.Errorf("directory %q is a symbolic link that belongs to user %d", d.path, owner)
		}
	}
	path, err := filepath.Abs(d.path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	for err == nil && path != "/" {
		path = filepath.Dir(path)
		var info fs.FileInfo
		if info, err = os.Stat(path); err == nil && info.Mode().Perm()&writable != 0 && info.Mode()&fs.ModeSticky == 0 {
			err = fmt.Errorf("directory %q: other users can write to %q and replace it", d.path, path)
		}
	}
	return err
}

// own checks that a file belongs to this user, and that no other user can write to it.
func own(info fs.FileInfo) error {
	owner := info.Sys().(*syscall.Stat_t).Uid
	if int(owner) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d", owner)
	}
	if info.Mode().Perm()&writable != 0 {
		return fmt.Errorf("other users can write to it (mode %#o)", info.Mode().Perm())
	}
	return nil
}

// Replace writes a file and replaces the previous one atomically.
func (d *Directory) Replace(name string, write func(io.Writer) error) error {
	fresh := name + ".new"
	if err := d.Remove(fresh); err != nil {
		return err
	}
	f, err := d.root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Sync(), f.Close())
	if err == nil {
		err = d.root.Rename(fresh, name)
	}
	if err != nil {
		return errors.Join(err, d.root.Remove(fresh))
	}
	return d.self.Sync()
}

// Read opens a file. It fails if the file is not regular, or if other users could write to it.
// If the file does not exist, the error wraps [fs.ErrNotExist].
func (d *Directory) Read(name string) (*os.File, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("not a regular file")
	default:
		err = own(info)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%q: %w", filepath.Join(d.path, name), err)
	}
	return f, nil
}

// Remove removes a file if it exists.
func (d *Directory) Remove(name string) error {
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Files returns the regular files in the directory.
func (d *Directory) Files() ([]fs.FileInfo, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	var files []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
		}
	}
	return files, err
}
