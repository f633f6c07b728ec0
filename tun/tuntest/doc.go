// Package tuntest is frame I/O in memory, for tests: [Port.Inject] puts frames in, and
// [Port.Next] takes them out. Any goroutine may call these two; a lane belongs to one
// goroutine.
//
// It imports tun.
package tuntest
