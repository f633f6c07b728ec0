package sidecar

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"time"

	"fragwall/tun/handover"
	"fragwall/tun/netdev"
)

// Follow tracks changes of the addresses, routes and neighbours of the namespace until ctx is
// done. It moves what the NIC receives to the TAP, and keeps a copy of the TAP's state in case
// the process is killed.
func (s *attachment) Follow(ctx context.Context) {
	tap, err := s.kernel.index(s.config.Inside.TAP)
	if err != nil {
		s.log.Warn("cannot follow changes of addresses and routes", "error", err)
		return
	}
	take := func(messages []syscall.NetlinkMessage) {
		nic, concerned := s.nicIndex(), messages == nil
		for _, m := range messages {
			for _, index := range handover.Changed(m) {
				concerned = concerned || index == nic || index == tap
			}
		}
		if !concerned {
			return
		}
		select {
		case s.changed <- struct{}{}:
		default: // a change is already pending
		}
	}
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { s.kernel.follow(ctx, s.log, take, handover.Groups...) })
	s.catchUp(ctx)
}

func (s *attachment) nicIndex() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Index
}

// adoptLate moves to the TAP what the NIC has received since the start.
func (s *attachment) adoptLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.kernel.moved(s.state) {
		return
	}
	adopted, err := s.kernel.adopt(s.state, s.config.Inside.TAP)
	switch {
	case errors.Is(err, netdev.ErrMissing): // the watch of the links logs it
	case err != nil:
		s.log.Warn("cannot move addresses or routes that were added to the nic", "error", err)
	case len(adopted) > 0:
		s.log.Info("moved addresses or routes that were added to the nic", "nic", s.state.NIC, "tap", s.config.Inside.TAP, "moved", strings.Join(adopted, ", "))
	}
}

// Delay between the first change and its handling, so that a program that gives the NIC an
// address can also give it the routes that need the address; and the largest share of the time
// that handling may take, on a host with very many routes.
const (
	followDelay = 200 * time.Millisecond
	followShare = 20
)

// catchUp moves and keeps changes, until ctx is done.
func (s *attachment) catchUp(ctx context.Context) {
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
			s.log.Warn("cannot save the state: changes since the start are lost if the process is killed", "error", err)
			failed = true
		}
		wait = max(followDelay, followShare*time.Since(begun))
	}
}
