package rules

import (
	"strings"
	"unicode/utf8"
)

// nearest returns the candidate that is most similar to an unknown name: the one with the
// fewest edits, if these are few for its length (of several the longest, because letters
// are more often left out than added), otherwise one that begins with the name. It
// returns "" if there is none.
func nearest(name string, candidates []string) string {
	length := utf8.RuneCountInString(name)
	best, fewest := "", max(1, length/3)+1
	for _, c := range candidates {
		d := edits(strings.ToLower(name), c)
		if d < len(c) && (d < fewest || d == fewest && best != "" && len(c) > len(best)) {
			best, fewest = c, d
		}
	}
	if best != "" {
		return best
	}
	for _, c := range candidates {
		if length >= 3 && strings.HasPrefix(c, strings.ToLower(name)) {
			return c
		}
	}
	return ""
}

// maxEdited is the longest name in bytes that edits compares. It is longer than any known
// name, so that a longer one is similar to none.
const maxEdited = 64

// edits returns the number of runes that must be inserted, removed, replaced or swapped
// with the next one to turn a into b (the optimal string alignment distance).
func edits(a, b string) int {
	if len(a) > maxEdited || len(b) > maxEdited {
		return len(a) + len(b)
	}
	from, to := []rune(a), []rune(b)
	var before, last, row [maxEdited + 1]int
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(from); i++ {
		row[0] = i
		for j := 1; j <= len(to); j++ {
			replace := last[j-1]
			if from[i-1] != to[j-1] {
				replace++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && from[i-1] == to[j-2] && from[i-2] == to[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(to)]
}
