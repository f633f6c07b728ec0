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

// resubscribeDelay is how long it takes until a subscription that failed is
// tried again.
const resubscribeDelay = time.Second

// Follow calls take with the messages of groups of rtnetlink(7),
// until ctx is done. It calls it with no message where something may have been
// missed: at the beginning, where more came than the socket holds, and after a
// failure, which ends nothing.
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
