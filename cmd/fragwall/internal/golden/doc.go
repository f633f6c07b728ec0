// Package golden compares the output of tests with files in testdata.
//
// Only tests import it. It imports nothing of fragwall's.
package golden
