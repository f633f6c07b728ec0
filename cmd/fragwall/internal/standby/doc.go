// Package standby runs a process that forwards while systemd restarts the service, so that the wire
// is never without one:
//
//	service's process ──► standby, in a scope of its own ──► service's next process
//
// Each arrow is a take-over ("run --replace"). systemd runs [Run] as the service's ExecStop=, and
// starts the next process once the previous one has ended. That takes longer than the queues of a
// wire can buffer. If the service is stopped and not restarted, Run does nothing.
//
// The standby ends when the next process takes over. If none does, it ends by itself after a while
// and restores everything.
//
// The package imports nothing of fragwall's.
package standby
