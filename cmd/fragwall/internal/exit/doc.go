// Package exit defines the exit codes of the process, and the errors that select one.
//
// Any package of the command may return these errors. Only main acts on them. The package imports no
// other package of fragwall.
package exit
