package sidecar

import (
	"context"
	"log/slog"
	"net"
	"syscall"

	"fragwall/tun/handover"
	"fragwall/tun/netdev"
)

// namespace is the kernel's side of an attachment: the addresses, routes and neighbours of the
// network namespace. See the methods of [handover.State].
type namespace struct {
	move    func(s *handover.State, tap string, join func() error) (kept []string, err error)
	moved   func(s *handover.State) bool
	refresh func(s *handover.State, tap string) error
	adopt   func(s *handover.State, tap string) (adopted []string, err error)
	replace func(s *handover.State, nic, tap string) error
	putBack func(s *handover.State, tap string, detach func() error) error
	index   func(device string) (int, error)
	follow  func(ctx context.Context, log *slog.Logger, take func([]syscall.NetlinkMessage), groups ...uint)
}

// current is the network namespace of the calling thread.
var current = namespace{
	move:    (*handover.State).Move,
	moved:   (*handover.State).Moved,
	refresh: (*handover.State).Refresh,
	adopt:   (*handover.State).Adopt,
	replace: (*handover.State).Replace,
	putBack: (*handover.State).Return,
	index: func(device string) (int, error) {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return 0, err
		}
		return i.Index, nil
	},
	follow: netdev.Follow,
}
