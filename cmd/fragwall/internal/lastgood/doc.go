// Package lastgood keeps the last configuration that ran, so that a box whose
// configuration was broken since can start with it.
//
//	files ──► Copy.Record ──► configuration
//	            │ runs
//	            ▼
//	          Store.Save ──► DIR/NAME.tar ──► Store.Load ──► Copy.Read ──► configuration
//
// A [Copy] has the texts of the configuration and of all files that it names,
// exactly as they were read. A [Store] is a directory with one tar archive for
// each configuration file. An archive is replaced as a whole: after a crash at
// any moment there is the old one or the new one. A Store is used by one goroutine
// at a time.
//
// The package imports private.
package lastgood
