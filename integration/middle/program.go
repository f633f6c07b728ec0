package middle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// generateCommand is the argument that makes a program run as traffic generator. The next argument
// is a specification in JSON.
const generateCommand = "generate"

// Program is a command that measures. It runs itself as sender and receiver.
type Program struct {
	Name     string
	Measure  func(context.Context) error // SIGINT and SIGTERM end its context
	Generate func(spec string) error     // spec is the specification given to [Generator], as JSON
}

// Main runs the program, and exits with status 0, or with 1 after an error.
func (p *Program) Main() {
	if len(os.Args) == 3 && os.Args[1] == generateCommand {
		p.exit(p.Generate(os.Args[2]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p.exit(p.Measure(ctx))
}

func (p *Program) exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Generator returns the command line that runs the calling program as traffic generator with a
// specification.
func Generator(spec any) (program string, arguments []string, err error) {
	if program, err = os.Executable(); err != nil {
		return "", nil, fmt.Errorf("find this program: %w", err)
	}
	text, err := json.Marshal(spec)
	return program, []string{generateCommand, string(text)}, err
}

// Build builds fragwall in a temporary directory. It needs the source and the Go tool. remove deletes
// the directory.
func Build(ctx context.Context) (program string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "fragwall-build")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	program = filepath.Join(dir, "fragwall")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "fragwall/cmd/fragwall").CombinedOutput()
	if err != nil {
		remove()
		return "", nil, fmt.Errorf("build fragwall: %w: %s", err, out)
	}
	return program, remove, nil
}
