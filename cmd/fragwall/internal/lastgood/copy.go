package lastgood

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// Reader returns the text of a file of at most so many bytes.
type Reader = func(name string, most int64) (string, error)

// Copy is the texts of a configuration and of the files that it names.
type Copy struct {
	Config string    // absolute path of the configuration
	Kept   time.Time // when it was kept; zero for one that was not

	names []string // absolute paths in the order in which they were read
	texts map[string]string
}

// NewCopy returns a copy of a configuration that is yet to be read.
func NewCopy(config string) (*Copy, error) {
	config, err := filepath.Abs(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	return &Copy{Config: config, texts: make(map[string]string)}, nil
}

// Record returns a reader that keeps what read returns.
func (c *Copy) Record(read Reader) Reader {
	return func(name string, most int64) (string, error) {
		path, err := filepath.Abs(name)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		text, err := read(name, most)
		if err == nil {
			c.add(path, text)
		}
		return text, err
	}
}

// add adds a file, or another text of one.
func (c *Copy) add(path, text string) {
	if _, known := c.texts[path]; !known {
		c.names = append(c.names, path)
	}
	c.texts[path] = text
}

// Adopt takes a file from another copy, where this one has none of its name.
func (c *Copy) Adopt(from *Copy, name string) {
	path, err := filepath.Abs(name)
	text, there := from.texts[path]
	if _, known := c.texts[path]; err == nil && there && !known {
		c.add(path, text)
	}
}

// Read is a [Reader] of the copy.
func (c *Copy) Read(name string, most int64) (string, error) {
	text, known := c.texts[name]
	switch {
	case !known:
		return "", fmt.Errorf("%q: %w among what was kept", name, fs.ErrNotExist)
	case int64(len(text)) > most:
		return "", fmt.Errorf("%q has %d bytes; want at most %d", name, len(text), most)
	}
	return text, nil
}
