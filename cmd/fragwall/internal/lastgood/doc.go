// Package lastgood keeps the last configuration that ran, so that a box can start with it if its
// configuration has since been broken.
//
//	files ──► Copy.Record ──► configuration
//	            │ runs
//	            ▼
//	          Store.Save ──► DIR/NAME.tar ──► Store.Load ──► Copy.Read ──► configuration
//
// A [Copy] holds the texts of the configuration and of all files that it names, exactly as they were
// read. A [Store] is a directory with one tar archive per configuration file. An archive is replaced
// atomically: after a crash at any time, either the old one or the new one exists. Only one
// goroutine at a time may use a Store.
//
// The package imports private.
package lastgood
