// Package events logs single decisions of the wire: dropped frames, sampled, and
// what rules with log = true decide on.
//
//	wire ──► Recorder ──► queue ──► log
//	         budget                 the last ones, for the status page
//
// The goroutines of the wire call [Recorder.Wants] for each decision, which costs
// them a look at a counter: the budget of the decision's subject for this period.
// A decision within the budget becomes a [record.Event] in a queue once its batch was
// written. It never waits for the log: where the queue is full, or the log's disk,
// the event counts as suppressed. [Recorder.Run] is the one goroutine that writes
// to the log; another one for each kind of event renews the budgets.
//
// The package imports record for the events, and wire, filter, packet, packet/verdict and
// rules for their vocabulary.
package events
