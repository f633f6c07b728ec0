// Package exit has the exit codes of the process, and the errors that choose one.
//
// Any package of the command may return them; only main acts on them. The package
// imports nothing of ours.
package exit
