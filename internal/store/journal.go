package store

import "github.com/hermesgw/hermes/internal/filesystem"

// journalMode names the journal that the filesystem of path can carry. WAL
// shares memory between openers through a mapped file; where two kernels see
// the same file (network and shared-folder filesystems) that memory is not
// shared, and databases have been corrupted by it (sqlite.org/wal.html).
func journalMode(path string) string {
	fs, err := filesystem.Of(path)
	if err != nil || fs.Shared {
		return rollback
	}
	return writeAhead
}
