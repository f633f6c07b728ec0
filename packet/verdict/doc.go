// Package verdict holds what a verdict on a frame is made of: the [Side] that
// the frame came in by, the [Action], the [Reason] of a drop, and the number of
// the [Rule] that decided.
//
// The numbers are a format: programs in the kernel share them through maps, so
// a number never changes its meaning and is never used again. A new value gets
// the next free number. TestNumbers holds them.
//
// The package imports nothing of ours and has no state.
package verdict
