package filesystem

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// kind is what is known of one filesystem type.
type kind struct {
	name   string
	shared bool
}

// The magic numbers that package unix has no name for, from the kernel's
// sources and statfs(2).
const (
	zfsMagic  = 0x2fc12fc1
	vboxMagic = 0x786f4256
)

// kindOf names a type by its magic number. FUSE counts as shared: virtiofs,
// sshfs and the mounts of desktop container engines are among it.
func kindOf(magic int64) kind {
	switch magic & 0xffffffff { // some systems extend the sign
	case unix.EXT4_SUPER_MAGIC:
		return kind{"ext4", false}
	case unix.XFS_SUPER_MAGIC:
		return kind{"xfs", false}
	case unix.BTRFS_SUPER_MAGIC:
		return kind{"btrfs", false}
	case unix.F2FS_SUPER_MAGIC:
		return kind{"f2fs", false}
	case zfsMagic:
		return kind{"zfs", false}
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return kind{"tmpfs", false}
	case unix.OVERLAYFS_SUPER_MAGIC:
		return kind{"overlay", false}
	case unix.NFS_SUPER_MAGIC:
		return kind{"nfs", true}
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return kind{"smb", true}
	case unix.V9FS_MAGIC:
		return kind{"9p", true}
	case unix.FUSE_SUPER_MAGIC:
		return kind{"fuse", true}
	case unix.CEPH_SUPER_MAGIC:
		return kind{"ceph", true}
	case unix.AFS_SUPER_MAGIC:
		return kind{"afs", true}
	case vboxMagic:
		return kind{"vboxsf", true}
	}
	return kind{fmt.Sprintf("%#x", magic&0xffffffff), false}
}

// Of looks at the filesystem of path, which must exist.
func Of(path string) (Info, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Info{}, fmt.Errorf("cannot tell the filesystem of %q: %w", path, err)
	}
	k := kindOf(int64(fs.Type))
	return Info{
		Name: k.name, Shared: k.shared, Volatile: k.name == "overlay" || k.name == "tmpfs", ReadOnly: fs.Flags&unix.ST_RDONLY != 0,
		Free: fs.Bavail * uint64(fs.Bsize), Inodes: fs.Ffree, Countless: fs.Files == 0,
	}, nil
}
