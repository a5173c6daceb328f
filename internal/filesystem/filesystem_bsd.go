//go:build darwin || freebsd

package filesystem

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Of returns the filesystem of path. Shared is what the system does not call
// local (MNT_LOCAL of statfs(2)).
func Of(path string) (Info, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Info{}, fmt.Errorf("cannot tell the filesystem of %q: %w", path, err)
	}
	return Info{
		Name:      unix.ByteSliceToString(fs.Fstypename[:]),
		Shared:    fs.Flags&unix.MNT_LOCAL == 0,
		ReadOnly:  fs.Flags&unix.MNT_RDONLY != 0,
		Free:      uint64(max(int64(fs.Bavail), 0)) * uint64(fs.Bsize), // FreeBSD counts below 0 in root's reserve
		Inodes:    uint64(max(int64(fs.Ffree), 0)),
		Countless: fs.Files == 0,
	}, nil
}
