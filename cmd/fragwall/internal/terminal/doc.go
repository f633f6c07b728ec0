// Package terminal detects the properties of the terminal that the command writes to, and formats
// text for users.
//
// The package imports no other package of fragwall.
package terminal
