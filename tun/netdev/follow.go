package netdev

import (
	"context"
	"errors"
	"log/slog"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// resubscribeDelay is the time before a failed subscription is tried again.
const resubscribeDelay = time.Second

// Follow calls take with the messages of rtnetlink(7) groups until ctx is done. It calls
// take without a message if messages may have been missed: at the beginning, if the
// socket's buffer overflowed, and after an error, after which it continues.
func Follow(ctx context.Context, log *slog.Logger, take func([]syscall.NetlinkMessage), groups ...uint) {
	for ctx.Err() == nil {
		err := subscribe(ctx, take, groups...)
		if ctx.Err() != nil {
			return
		}
		log.Warn("cannot follow changes of devices; trying again", "error", err)
		select {
		case <-time.After(resubscribeDelay):
		case <-ctx.Done():
		}
	}
}

func subscribe(ctx context.Context, take func([]syscall.NetlinkMessage), groups ...uint) error {
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return err
	}
	closed := context.AfterFunc(ctx, events.Close)
	defer func() {
		if closed() {
			events.Close()
		}
	}()
	take(nil)
	for {
		messages, _, err := events.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			take(nil)
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		case err != nil:
			return err
		default:
			take(messages)
		}
	}
}
