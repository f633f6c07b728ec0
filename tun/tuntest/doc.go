// Package tuntest provides frame I/O in memory, for tests: [Port.Inject] passes frames to the
// lanes, and [Port.Next] returns the frames that lanes wrote. Any goroutine may call these two. A
// lane belongs to one goroutine. [Sink] is a lane that passes written frames to a function.
//
// It imports tun.
package tuntest
