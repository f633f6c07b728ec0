// Package doctest has no code: its tests compare the documents with the rest of the
// repository.
//
//   - Every command in a document is run by a test, by a script or by CI, or
//     commands.toml gives the reason why it is not (commands_test.go).
//   - Every link between documents has a target, and so does every mention of a
//     document in another file (links_test.go).
//   - Every word is in the dictionary en_GB or in words.txt (spelling_test.go).
//
// A document is any file NAME.md of the repository.
package doctest
