// Package reassembly is a model of one datagram in fragments, slow and obvious,
// for tests to compare with: it keeps all fragments and looks at every one of
// them again for each that comes.
//
// In come fragments that are sound in themselves; out go why one can't be of the
// datagram, and the datagram's bytes once it is whole. A [Datagram] belongs to
// one goroutine. Of ours it imports packet/verdict. No package of the program may
// import it.
package reassembly
