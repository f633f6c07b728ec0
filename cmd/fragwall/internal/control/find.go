package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"fragwall/cmd/fragwall/internal/exit"
)

// instance is what a client knows about the instance of a socket.
type instance struct {
	path string
	file string // its configuration file
	err  error  // why it does not answer
}

// askAll asks the instances of all sockets in directories concurrently. It removes sockets on
// which no process listens.
func askAll(dirs []string) []instance {
	var paths []string
	for _, dir := range dirs {
		found, _ := filepath.Glob(filepath.Join(dir, "*"+socketSuffix))
		paths = append(paths, found...)
	}
	all := make([]instance, len(paths))
	var asking sync.WaitGroup
	for i, path := range paths {
		asking.Go(func() {
			file, err := askFile(path)
			all[i] = instance{path, file, err}
		})
	}
	asking.Wait()
	var live []instance
	for _, one := range all {
		if errors.Is(one.err, syscall.ECONNREFUSED) {
			_ = clearDirectory(filepath.Dir(one.path)) // whatever remains does no harm
			continue
		}
		live = append(live, one)
	}
	return live
}

// choose returns the given socket, or that of the instance that [find] finds, once the instance
// has answered. So any request to a stopped instance fails soon.
func (i Instance) choose() (path string, err error) {
	if path = i.Socket; path == "" {
		if path, err = find(i.File); err != nil {
			return "", err
		}
	}
	_, err = askFile(path)
	return path, err
}

// ownDirectories returns the default directories that exist. One that does not belong to this
// user is an error, except for root's.
func ownDirectories() (dirs []string, err error) {
	for _, dir := range Directories() {
		switch err := checkDirectory(dir); {
		case err == nil:
			dirs = append(dirs, dir)
		case errors.Is(err, os.ErrNotExist), isOfRoot(dir):
		default:
			return nil, err
		}
	}
	return dirs, nil
}

// find returns the default socket of the instance that runs with a configuration file or, if
// file is "", of the only one that runs.
func find(file string) (string, error) {
	dirs, err := ownDirectories()
	if err != nil {
		return "", err
	}
	wanted, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	var found, silent []string
	for _, one := range askAll(dirs) {
		switch {
		case one.err != nil:
			silent = append(silent, one.path)
		case file == "" || one.file == wanted:
			found = append(found, one.path)
		}
	}
	if file == "" { // a stopped instance may be the one that the user means
		found, silent = append(found, silent...), nil
	}
	where, more, choose := strings.Join(Directories(), " or "), ": is it running?", "--socket or -c"
	if file != "" {
		choose = "--socket"
	}
	if mayHide(rootDirectory) {
		more = fmt.Sprintf(": is it running? Only root may use sockets in %s", rootDirectory)
	}
	if len(silent) > 0 {
		more = fmt.Sprintf("; no answer within %s from %s: is it stopped?", fileTimeout, strings.Join(silent, ", "))
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", exit.Usagef("several instances are running; choose one by %s: %s", choose, strings.Join(found, ", "))
	case file != "":
		return "", fmt.Errorf("no instance of fragwall with a socket in %s runs with %s%s", where, file, more)
	}
	return "", fmt.Errorf("no instance of fragwall has a socket in %s%s", where, more)
}

// mayHide reports whether there is a directory that this user may not read.
func mayHide(dir string) bool {
	_, err := os.ReadDir(dir)
	return errors.Is(err, fs.ErrPermission)
}
