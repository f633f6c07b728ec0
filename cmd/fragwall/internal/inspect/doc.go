// Package inspect transports the output of a lister over the control socket.
//
//	command ──► Client ──► control socket ──► Streams ──► listing.Lister
//
// Deleting flows is the only request that changes anything. The log names the user who deleted
// flows, or whose request was refused.
//
// Any number of goroutines may use both ends.
//
// Of fragwall's packages, it imports control, exit, explain, listing and terminal (below
// cmd/fragwall/internal), rules and wire.
package inspect
