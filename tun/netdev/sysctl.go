package netdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// sysctlRoot is the directory with the settings of the network namespace of the thread
// that opens a file there.
const sysctlRoot = "/proc/sys"

// A sysctl is named by its path below /proc/sys.

// IPv6Switch is the sysctl that disables IPv6 on a device.
func IPv6Switch(device string) string { return "net/ipv6/conf/" + device + "/disable_ipv6" }

// Sysctl returns a kernel parameter without surrounding white space. The error wraps
// [fs.ErrNotExist] if the kernel does not have it, for instance without IPv6.
func Sysctl(name string) (value string, err error) {
	b, err := os.ReadFile(filepath.Join(sysctlRoot, name))
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// SetSysctl sets a kernel parameter.
func SetSysctl(name, value string) error {
	if err := os.WriteFile(filepath.Join(sysctlRoot, name), []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl to %s: %w", value, explainSysctl(name, value, err))
	}
	return nil
}

// explainSysctl adds to an error what an operator can do if /proc/sys is read-only, as in
// most containers.
func explainSysctl(name, value string, err error) error {
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	return fmt.Errorf("%w: set %s = %s where the network namespace is created, for example with docker run --sysctl or securityContext.sysctls of a pod",
		err, strings.ReplaceAll(name, "/", "."), value)
}

// SwapSysctl sets a kernel parameter, and returns its old value, or "" if that was the
// same. It skips a parameter that the kernel does not have.
func SwapSysctl(name, value string) (old string, err error) {
	old, err = Sysctl(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && old == value {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return old, SetSysctl(name, value)
}

// Sysctls returns the names of the kernel parameters in a directory.
func Sysctls(directory string) (names []string, err error) {
	files, err := os.ReadDir(filepath.Join(sysctlRoot, directory))
	if err != nil {
		return nil, fmt.Errorf("list sysctls: %w", err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names, nil
}
