package exit

import (
	"errors"
	"fmt"
	"io"
)

// Exit codes of the process.
const (
	Failed = 1 // while running
	Usage  = 2 // wrong usage or a wrong configuration
)

// UsageError is an error in how the program was called, or in a file that it was
// given: its code is [Usage].
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef returns a [UsageError] as [fmt.Errorf] formats it.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Code is an error whose text was printed already: only the exit code is left.
type Code int

func (c Code) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Printed prints the mistakes of a configuration, one a line, and returns what is
// left to say of them: the exit code. An error of usage it returns as it is.
func Printed(w io.Writer, err error) error {
	if usage := (*UsageError)(nil); errors.As(err, &usage) {
		return err
	}
	fmt.Fprintln(w, err)
	return Code(Usage)
}
