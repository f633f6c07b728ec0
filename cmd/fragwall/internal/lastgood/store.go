package lastgood

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	directoryMode = 0o700
	fileMode      = 0o600
	writable      = 0o022 // by others than the owner
	// maxArchive is how large an archive may be in bytes.
	maxArchive = 2 << 30
)

// Store is a directory that only this user can write to.
type Store struct {
	dir  string
	root *os.Root // so that later the name may lead elsewhere
	self *os.File // the directory, to be synchronised
}

// Open opens a directory, which it makes where it is missing. One that others
// could write to is refused.
func Open(dir string) (*Store, error) {
	if err := os.Mkdir(dir, directoryMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, root: root}
	if s.self, err = root.Open("."); err == nil {
		err = s.trust()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes the directory.
func (s *Store) Close() error {
	if s.self != nil {
		_ = s.self.Close()
	}
	return s.root.Close()
}

// trust checks that nobody else can write to the directory, nor put another one
// in its place.
func (s *Store) trust() error {
	info, err := s.self.Stat()
	if err != nil {
		return err
	}
	if err := own(info); err != nil {
		return fmt.Errorf("directory %q: %w; want mode 0700", s.dir, err)
	}
	if link, err := os.Lstat(s.dir); err == nil && link.Mode()&fs.ModeSymlink != 0 {
		if owner := link.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
			return fmt.Errorf("directory %q is a link of user %d", s.dir, owner)
		}
	}
	path, err := filepath.Abs(s.dir)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	for err == nil && path != "/" {
		path = filepath.Dir(path)
		if info, err = os.Stat(path); err == nil && info.Mode().Perm()&writable != 0 && info.Mode()&fs.ModeSticky == 0 {
			err = fmt.Errorf("directory %q: others can write to %q, and so replace it", s.dir, path)
		}
	}
	return err
}

// own checks that a file belongs to this user, and that only this user can write
// to it.
func own(info fs.FileInfo) error {
	owner := info.Sys().(*syscall.Stat_t).Uid
	if int(owner) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d", owner)
	}
	if info.Mode().Perm()&writable != 0 {
		return fmt.Errorf("others can write to it (mode %#o)", info.Mode().Perm())
	}
	return nil
}

// archiveName returns the name of the archive of a configuration: it tells people
// which, and no two have the same.
func archiveName(config string) string {
	base := filepath.Base(config)
	return fmt.Sprintf("%.100s-%.16x.tar", base, sha256.Sum256([]byte(config)))
}

// Save keeps a copy in place of the one before.
func (s *Store) Save(c *Copy, now time.Time) error {
	name := archiveName(c.Config)
	fresh := name + ".new"
	if err := s.root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	err = errors.Join(c.write(f, now), f.Sync(), f.Close())
	if err == nil {
		err = s.root.Rename(fresh, name)
	}
	if err != nil {
		return errors.Join(err, s.root.Remove(fresh))
	}
	return s.self.Sync()
}

// write writes the archive of a copy.
func (c *Copy) write(to io.Writer, now time.Time) error {
	w := tar.NewWriter(to)
	add := func(name, text string) error {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: fileMode, Size: int64(len(text)), ModTime: now.Truncate(time.Second), Format: tar.FormatPAX})
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		return err
	}
	for _, path := range c.names {
		if err := add(path, c.texts[path]); err != nil {
			return err
		}
	}
	return errors.Join(add(sumsName, c.sums()), w.Close())
}

// sumsName is the last entry of an archive: the sums of all others, as
// sha256sum(1) writes them. A disk may return other bytes than it was given.
const sumsName = "SHA256SUMS"

// sums returns the sums of all files.
func (c *Copy) sums() string {
	var b strings.Builder
	for _, path := range c.names {
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256([]byte(c.texts[path])), path)
	}
	return b.String()
}

// Load returns the copy that was kept of a configuration. Where there is none,
// the error is [fs.ErrNotExist].
func (s *Store) Load(config string) (*Copy, error) {
	c, err := NewCopy(config)
	if err != nil {
		return nil, err
	}
	name := archiveName(c.Config)
	f, err := s.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("not a regular file")
	default:
		err = own(info)
	}
	if err == nil {
		err = c.read(io.LimitReader(f, maxArchive))
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", filepath.Join(s.dir, name), err)
	}
	return c, nil
}

// read reads an archive.
func (c *Copy) read(from io.Reader) error {
	r := tar.NewReader(from)
	sums := ""
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if header.Name == sumsName {
			c.Kept = header.ModTime
			sums = string(text)
			break
		}
		if err := c.Add(header.Name, string(text)); err != nil {
			return err
		}
	}
	if sums == "" || sums != c.sums() {
		return errors.New("damaged: its checksums are missing or wrong")
	}
	if _, there := c.texts[c.Config]; !there {
		return fmt.Errorf("it does not hold %q", c.Config)
	}
	return nil
}
