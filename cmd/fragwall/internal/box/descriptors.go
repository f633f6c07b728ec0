package box

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// How many file descriptors a box needs, and some to spare: the runtime's, the
// log, the control socket, the status server with clients, subscriptions to
// netlink; and of each queue those of the TAP, of its ring, and of the threads
// that open some for a moment.
const (
	descriptors         = 64
	descriptorsPerQueue = 4
)

// checkDescriptors fails where the process may not open as many files as a box of
// so many queues, both sides together, needs: the runtime ends the process where
// it gets none, whatever is left behind then.
func checkDescriptors(queues int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if need := uint64(descriptors + descriptorsPerQueue*queues); limit.Cur < need {
		return fmt.Errorf("the limit of open files is %d, and %d queues need %d: raise it (ulimit -n, LimitNOFILE= of systemd)", limit.Cur, queues, need)
	}
	return nil
}
