package modelserver

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

type connectionKey struct{}

// KeepConnection is for http.Server.ConnContext: with it the record says which
// requests had lost their client before they were read.
func KeepConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

// States of a TCP connection whose other end has said that it will send no more,
// or that is gone altogether (linux/include/net/tcp_states.h).
const (
	tcpClose     = 7
	tcpCloseWait = 8
	tcpLastAck   = 9
	tcpClosing   = 11
)

// orphan says whether the client of the request has closed its end.
func orphan(ctx context.Context) bool {
	c, ok := ctx.Value(connectionKey{}).(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true // it is closed on our side too
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			gone = true
			return
		}
		switch info.State {
		case tcpClose, tcpCloseWait, tcpLastAck, tcpClosing:
			gone = true
		}
	})
	return gone || err != nil
}
