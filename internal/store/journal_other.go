//go:build !linux

package store

// journalMode names the journal to use; only Linux tells filesystems apart here.
func journalMode(string) string { return writeAhead }
