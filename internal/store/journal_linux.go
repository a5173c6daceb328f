package store

import "golang.org/x/sys/unix"

// journalMode names the journal that the filesystem of path can carry. WAL
// shares memory between openers through a mapped file; where two kernels see
// the same file (network and shared-folder filesystems) that memory is not
// shared, and databases have been corrupted by it (sqlite.org/wal.html).
func journalMode(path string) string {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return rollback
	}
	switch int64(fs.Type) & 0xffffffff {
	case unix.V9FS_MAGIC, unix.FUSE_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC,
		unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC:
		return rollback
	default:
		return writeAhead
	}
}
