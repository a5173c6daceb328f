//go:build darwin || freebsd

package unix

import "golang.org/x/sys/unix"

// IsTerminal says whether fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TIOCGETA)
	return err == nil
}

// PeerUID is who is at the other end of a Unix socket: LOCAL_PEERCRED of unix(4),
// the effective uid at the time of connect.
func PeerUID(fd int) (int, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return -1, err
	}
	return int(cred.Uid), nil
}
