// Package terminal detects the properties of the terminal that the command writes to.
//
// The package imports nothing of fragwall's.
package terminal
