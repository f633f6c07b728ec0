// Package events tells of single decisions of the wire: of dropped frames,
// sampled, and of what rules with log = true decide on.
//
//	wire ──► Recorder ──► queue ──► log
//	         budget                 the last ones, for the status page
//
// The goroutines of the wire call [Recorder.Wants] for each decision. It costs
// them a look at a counter, the budget of the kind for this while. What is
// within it is copied into a queue, and never waits for the log: where the
// queue is full, or the log's disk, the event counts as suppressed.
// [Recorder.Run] is the one goroutine that writes, and renews the budgets.
//
// The package imports wire, filter, packet and rules, for their vocabulary.
package events
