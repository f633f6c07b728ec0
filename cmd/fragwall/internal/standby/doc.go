// Package standby has a process forward while systemd restarts the service, so that the
// wire is never without one:
//
//	service's process ──► standby, in a scope of its own ──► service's next process
//
// Each arrow is a take-over ("run --replace"). systemd runs [Run] as the service's
// ExecStop=, starts the next process once the one before is gone, and takes longer for
// that than the queues of a wire hold. Where the service is stopped and not restarted,
// Run does nothing.
//
// The standby ends when the next process takes over, or, where none does, by itself after
// a while, and then puts everything back.
//
// The package imports nothing of fragwall's.
package standby
