package lastgood

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// Reader returns the text of a file. It fails if the file has more than most bytes, or if
// reading takes longer than within.
type Reader = func(name string, most int64, within time.Duration) (string, error)

// Copy is the texts of a configuration and of the files that it names.
type Copy struct {
	Config string    // absolute path of the configuration
	Kept   time.Time // when it was saved; zero if it was not

	names []string // absolute paths in reading order
	texts map[string]string
}

// NewCopy returns an empty copy for a configuration.
func NewCopy(config string) (*Copy, error) {
	config, err := filepath.Abs(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	return &Copy{Config: config, texts: make(map[string]string)}, nil
}

// Record returns a reader that adds what read returns to the copy.
func (c *Copy) Record(read Reader) Reader {
	return func(name string, most int64, within time.Duration) (string, error) {
		text, err := read(name, most, within)
		if err == nil {
			err = c.Add(name, text)
		}
		return text, err
	}
}

// Add adds a file, or replaces its text.
func (c *Copy) Add(name, text string) error {
	path, err := filepath.Abs(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, known := c.texts[path]; !known {
		c.names = append(c.names, path)
	}
	c.texts[path] = text
	return nil
}

// Read is a [Reader] that reads from the copy.
func (c *Copy) Read(name string, most int64, _ time.Duration) (string, error) {
	path, err := filepath.Abs(name)
	text, known := c.texts[path]
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", name, err)
	case !known:
		return "", fmt.Errorf("%q: %w in the copy", name, fs.ErrNotExist)
	case int64(len(text)) > most:
		return "", fmt.Errorf("%q has %d bytes; want at most %d", name, len(text), most)
	}
	return text, nil
}
