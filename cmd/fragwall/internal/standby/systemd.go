package standby

import (
	"context"
	"fmt"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// Systemd is the service manager, accessed through its own D-Bus socket
// (org.freedesktop.systemd1(5)).
type Systemd struct{}

var _ Manager = Systemd{}

// Restarts implements [Manager]. It checks the type of the unit's job.
func (Systemd) Restarts(ctx context.Context, unit string) (bool, error) {
	c, err := connect(ctx)
	if err != nil {
		return false, err
	}
	defer c.Close()
	jobs, err := c.ListJobsContext(ctx)
	if err != nil {
		return false, fmt.Errorf("list systemd's jobs: %w", err)
	}
	for _, j := range jobs {
		if j.Unit == unit {
			return j.JobType == "restart", nil
		}
	}
	return false, nil
}

// Detach implements [Manager]. It asks systemd to create the scope.
func (Systemd) Detach(ctx context.Context, scope string, pid int) error {
	c, err := connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	made := make(chan string, 1)
	_, err = c.StartTransientUnitContext(ctx, scope, "fail", []dbus.Property{
		dbus.PropDescription("fragwall, while its service restarts"),
		dbus.PropPids(uint32(pid)),
		{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")},
	}, made)
	if err != nil {
		return fmt.Errorf("make scope %q: %w", scope, err)
	}
	select {
	case result := <-made:
		if result != "done" {
			return fmt.Errorf("make scope %q: %s", scope, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("make scope %q: %w", scope, ctx.Err())
	}
}

func connect(ctx context.Context) (*dbus.Conn, error) {
	c, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask systemd: %w", err)
	}
	return c, nil
}
