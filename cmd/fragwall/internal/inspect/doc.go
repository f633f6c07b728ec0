// Package inspect carries what a lister lists over the control socket.
//
//	command ──► Client ──► control socket ──► Streams ──► listing.Lister
//
// Only deleting flows changes anything; the log says who did, and who was refused.
//
// Both ends may be used by any number of goroutines.
//
// Of ours the package imports control, exit and listing, below cmd/fragwall/internal.
package inspect
