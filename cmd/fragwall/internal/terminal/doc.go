// Package terminal finds out about the terminal that the command writes to.
//
// The package imports nothing of ours.
package terminal
