// Package tuntest is frame I/O in memory, for tests: frames go in by [Port.Inject] and
// come out by [Port.Next]. Any goroutine may call these two; a lane belongs to one.
//
// Of fragwall's, it imports tun.
package tuntest
