package lastgood

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"fragwall/cmd/fragwall/internal/private"
)

const (
	fileMode = 0o600
	// maxArchive is the maximum size of an archive in bytes.
	maxArchive = 2 << 30
)

// Store is a directory that only this user can write to.
type Store struct{ dir *private.Directory }

// Open opens a directory, and creates it if it does not exist. It fails if other users could
// write to the directory or replace it.
func Open(dir string) (*Store, error) {
	d, err := private.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := d.TrustPath(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return &Store{d}, nil
}

// Close closes the directory.
func (s *Store) Close() error { return s.dir.Close() }

// archiveName returns the name of the archive of a configuration. It contains the base name for
// users and a hash of the path, so that it is unique.
func archiveName(config string) string {
	base := filepath.Base(config)
	return fmt.Sprintf("%.100s-%.16x.tar", base, sha256.Sum256([]byte(config)))
}

// Save saves a copy. It replaces the previous one.
func (s *Store) Save(c *Copy, now time.Time) error {
	return s.dir.Replace(archiveName(c.Config), func(to io.Writer) error { return c.write(to, now) })
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

// sumsName is the last entry of an archive. It has the checksums of all other entries in the
// format of sha256sum(1), to detect corruption on disk.
const sumsName = "SHA256SUMS"

// sums returns the checksums of all files.
func (c *Copy) sums() string {
	var b strings.Builder
	for _, path := range c.names {
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256([]byte(c.texts[path])), path)
	}
	return b.String()
}

// Load returns the saved copy of a configuration. If there is none, the error wraps
// [fs.ErrNotExist].
func (s *Store) Load(config string) (*Copy, error) {
	c, err := NewCopy(config)
	if err != nil {
		return nil, err
	}
	f, err := s.dir.Read(archiveName(c.Config))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := c.read(io.LimitReader(f, maxArchive)); err != nil {
		return nil, fmt.Errorf("%q: %w", filepath.Join(s.dir.Path(), archiveName(c.Config)), err)
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
		return errors.New("damaged: checksums are missing or wrong")
	}
	if _, there := c.texts[c.Config]; !there {
		return fmt.Errorf("it does not contain %q", c.Config)
	}
	return nil
}
