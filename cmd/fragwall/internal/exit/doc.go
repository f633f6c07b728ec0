// Package exit defines the exit codes of the process, and the errors that select one.
//
// Any package of the command may return these errors; only main acts on them. The package imports
// nothing of fragwall's.
package exit
