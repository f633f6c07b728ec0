package box

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// File descriptors that a box needs, with a reserve: for the runtime, the log, the control
// socket, the status server and its clients, and netlink subscriptions; and per queue for the
// TAP, its ring, and threads that open a file for a moment.
const (
	descriptors         = 64
	descriptorsPerQueue = 4
)

// checkDescriptors fails if the limit of open files is too low for a box with this number of
// queues on both sides together. Without the check, the runtime would end the process when it
// runs out of descriptors, and leave the devices behind.
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
