// Package verdict has the parts of a verdict on a frame: the [Side] that the frame
// arrived on, the [Action], the [Reason] of a drop, and the number of the [Rule] that
// decided.
//
// The numbers are a format: eBPF programs share them through maps. A number never changes
// its meaning and is never reused; a new value gets the next free number. TestNumbers
// checks them.
//
// The package has no state.
package verdict
