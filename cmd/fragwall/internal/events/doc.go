// Package events logs single decisions of the wire: a sample of the dropped frames, and the
// decisions of rules with log = true.
//
//	wire ──► Recorder ──► queue ──► log
//	         budget                 the last ones, for the status page
//
// The goroutines of the wire call [Recorder.Wants] for each decision. This costs them one check of a
// counter: the budget of the decision's subject for the current period. If the budget allows it, the
// decision becomes a [record.Event] in a queue after its batch was written. The wire never waits for
// the log: if the queue or the disk of the log is full, the event counts as suppressed.
// [Recorder.Run] is the only goroutine that writes to the log. One more goroutine per kind of event
// renews the budgets.
//
// The package imports record for the events, and wire, filter, packet, packet/verdict and rules for
// their types.
package events
