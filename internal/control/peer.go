package control

import (
	"errors"
	"net"

	"github.com/hermesgw/hermes/internal/unix"
)

// peerUID asks the kernel who is at the other end.
func peerUID(conn net.Conn) (int, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return -1, errors.New("not a unix socket")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return -1, err
	}
	var uid int
	var credErr error
	err = raw.Control(func(fd uintptr) { uid, credErr = unix.PeerUID(int(fd)) })
	if err := errors.Join(err, credErr); err != nil {
		return -1, err
	}
	return uid, nil
}
