// Package golden compares the output of tests with files in testdata.
//
// Only tests import it. It imports no other package of fragwall.
package golden
