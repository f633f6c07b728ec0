// Package doctest contains only tests. They compare the documents with the rest of the repository:
//
//   - A test, a script or CI runs every command in a document, or commands.toml gives the
//     reason why not (commands_test.go).
//   - The target of every link between documents exists, and so does every document that another
//     file mentions (links_test.go).
//   - Every word is in the dictionary en_GB or in words.txt (spelling_test.go).
//
// A document is a file of the repository whose name ends in .md.
package doctest
