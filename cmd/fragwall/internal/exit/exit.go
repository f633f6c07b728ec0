package exit

import (
	"errors"
	"fmt"
	"io"
)

// Exit codes of the process.
const (
	Failed = 1 // failure at run time
	Usage  = 2 // wrong usage or an invalid configuration
)

// UsageError is an error in the command line, or in a file that it names. Its exit code is
// [Usage].
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef returns a [UsageError] with a formatted text, as [fmt.Errorf] does.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Code is an error whose text has already been printed. Only the exit code remains.
type Code int

func (c Code) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Printed prints the mistakes in a configuration, one per line, and returns the exit code as an
// error. It returns a [UsageError] unchanged, without printing it.
func Printed(w io.Writer, err error) error {
	if usage := (*UsageError)(nil); errors.As(err, &usage) {
		return err
	}
	fmt.Fprintln(w, err)
	return Code(Usage)
}
