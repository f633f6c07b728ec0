// Package private keeps files in a directory that only the current user can write to.
//
// A file is replaced atomically: after a crash at any moment, either the old one or the new one is
// there. Only one goroutine at a time may use a [Directory].
//
// The package imports nothing of fragwall's.
package private
