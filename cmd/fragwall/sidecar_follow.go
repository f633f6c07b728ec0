package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"time"

	"fragwall/tun/handover"
	"fragwall/tun/netdev"
)

// follow keeps up with what happens to the addresses, routes and neighbours of
// the namespace, until ctx is done: what the NIC is given moves to the TAP, and
// what the TAP has is kept for the case that the process is killed.
func (s *sidecar) follow(ctx context.Context) {
	tap, err := net.InterfaceByName(s.config.Inside.TAP)
	if err != nil {
		s.log.Warn("changes of addresses and routes are not followed", "error", err)
		return
	}
	take := func(messages []syscall.NetlinkMessage) {
		nic, concerned := s.nicIndex(), messages == nil
		for _, m := range messages {
			for _, index := range handover.Changed(m) {
				concerned = concerned || index == nic || index == tap.Index
			}
		}
		if !concerned {
			return
		}
		select {
		case s.changed <- struct{}{}:
		default: // it is known already
		}
	}
	s.helpers.Go(func() { followNetlink(ctx, s.log, take, handover.Groups...) })
	s.helpers.Go(func() { s.catchUp(ctx) })
}

func (s *sidecar) nicIndex() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Index
}

// adoptLate moves to the TAP what the NIC was given since the start.
func (s *sidecar) adoptLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.state.Moved() {
		return
	}
	adopted, err := s.state.Adopt(s.config.Inside.TAP)
	switch {
	case errors.Is(err, netdev.ErrMissing): // which the watch over the links tells of
	case err != nil:
		s.log.Warn("what the nic was given can't be moved", "error", err)
	case len(adopted) > 0:
		s.log.Info("moved what the nic was given", "nic", s.state.NIC, "tap", s.config.Inside.TAP, "moved", strings.Join(adopted, ", "))
	}
}

// How long after the first change it is followed, so that who gives the NIC an
// address can still give it the routes that need that; and how large a part of
// the time it may take, where a host has very many routes.
const (
	followDelay = 200 * time.Millisecond
	followShare = 20
)

// catchUp moves and keeps what changed, until ctx is done.
func (s *sidecar) catchUp(ctx context.Context) {
	failed := false
	for wait := followDelay; ; {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		begun := time.Now()
		s.adoptLate()
		if err := s.keep(); err != nil && !failed {
			s.log.Warn("what changed since the start is lost after a kill", "error", err)
			failed = true
		}
		wait = max(followDelay, followShare*time.Since(begun))
	}
}

// newLinkWatch returns a watch over the box's devices. A NIC that came back takes
// the place of the one before.
func (s *sidecar) newLinkWatch() *linkWatch {
	w := newLinkWatch(s.box, s.config, s.log, s.events)
	w.shared = true
	w.rejoined = func(nic netdev.Link) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.state.Replace(nic.Name, s.config.Inside.TAP); err != nil {
			s.log.Error("the nic that came back is not taken over", "error", err)
			return
		}
		select {
		case s.changed <- struct{}{}: // what it has is to move
		default:
		}
	}
	return w
}
