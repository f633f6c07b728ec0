// Package golden compares what tests print with files of testdata.
//
// Only tests import it; it imports nothing of ours.
package golden
