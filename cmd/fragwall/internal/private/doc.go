// Package private keeps files in a directory that only this user can write to.
//
// A file is replaced as a whole: after a crash at any moment there is the old one or the
// new one. A [Directory] is used by one goroutine at a time.
//
// The package imports nothing of ours.
package private
