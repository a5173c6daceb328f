// Package typo finds the name that a mistyped word most likely meant. It knows
// no names of its own.
//
//	typo.Nearest("statsu", []string{"start", "status"}) // "status"
package typo

// farthest is how far a word may be from the one that is suggested for it.
const farthest = 3

// Nearest returns the name that word most likely meant, "" when none is near.
func Nearest(word string, names []string) string {
	best, distance := "", min(farthest, (len(word)+1)/2)+1
	for _, name := range names {
		if d := edits(word, name); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// edits is the Levenshtein distance of two words in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := previous
			if a[i] != b[j] {
				cost = min(previous, row[j], row[j+1]) + 1
			}
			previous, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
