// Package filesystem tells what a directory lies on: the name of its
// filesystem, whether another machine may have the same files open, and how
// much room is left. It writes nothing and tries nothing; doctor does.
//
//	fs, err := filesystem.Of("/opt/data")
//	fmt.Println(fs.Name, fs.Shared, fs.Free) // ext4 false 51539607552
package filesystem

// Info describes the filesystem of one path.
type Info struct {
	Name string // ext4, nfs, …; "0x…" for one without a name here; "" where the system does not say
	// Shared: its files may be open on another machine or in another kernel, so
	// memory is not shared and locks may not be.
	Shared bool
	// Volatile: a container's own layer or memory, gone with the container.
	Volatile bool
	ReadOnly bool
	Free     uint64 // bytes that an ordinary user may still write
	// Inodes that are left; Countless: the filesystem does not count them.
	Inodes    uint64
	Countless bool
}
