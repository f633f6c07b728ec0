// Package private keeps files in a directory that only the current user can write to.
//
// A file is replaced atomically: after a crash at any time, either the old one or the new one exists.
// Only one goroutine at a time may use a [Directory].
//
// The package imports no other package of fragwall.
package private
