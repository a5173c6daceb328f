// Package sdnotify tells the service manager that started this process how it
// is doing, in the protocol of sd_notify(3): one datagram of NAME=value lines
// to the socket that NOTIFY_SOCKET names. It decides nothing about states.
//
// Take removes the variables, so that what this process starts cannot speak in
// its name; that is why the widely used library is not, which reads its socket
// from the environment at each call.
//
//	m := sdnotify.Take(os.LookupEnv, os.Unsetenv, os.Getpid())
//	m.Send(sdnotify.Ready, sdnotify.Status("serving"))
//	if m.Watchdog() > 0 { … m.Send(sdnotify.Alive) at half of it … }
package sdnotify

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// The messages of sd_notify(3) that a gateway sends.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Alive    = "WATCHDOG=1"
)

// Status is free text for `systemctl status`, on one line.
func Status(text string) string {
	return "STATUS=" + strings.ReplaceAll(text, "\n", " ")
}

// variables are those of the protocol, sd_notify(3) and sd_watchdog_enabled(3).
const (
	socketVar   = "NOTIFY_SOCKET"
	intervalVar = "WATCHDOG_USEC"
	ownerVar    = "WATCHDOG_PID"
)

// Manager is the other end. A nil one is none: it takes every message and has
// no watchdog. It is safe for concurrent use.
type Manager struct {
	socket   string
	watchdog time.Duration
}

// Take finds the manager of the process pid in the environment and removes its
// variables. It returns nil where there is none.
func Take(lookup func(string) (string, bool), unset func(string) error, pid int) *Manager {
	read := func(name string) string {
		text, _ := lookup(name)
		_ = unset(name) // fails only for a name that cannot be one
		return text
	}
	m := Manager{socket: read(socketVar)}
	owner := read(ownerVar)
	if usec, err := strconv.ParseInt(read(intervalVar), 10, 64); err == nil && usec > 0 && (owner == "" || owner == strconv.Itoa(pid)) {
		m.watchdog = time.Duration(usec) * time.Microsecond
	}
	if m.socket == "" || m.socket[0] != '/' && m.socket[0] != '@' {
		return nil
	}
	return &m
}

// Watchdog is how long the manager goes without Alive before it acts; 0: for
// ever. Half of it is the pause to keep, says sd_watchdog_enabled(3).
func (m *Manager) Watchdog() time.Duration {
	if m == nil {
		return 0
	}
	return m.watchdog
}

// Send tells the manager all messages at once. It blocks only while the queue
// of the socket is full, at most for sendTimeout.
func (m *Manager) Send(messages ...string) error {
	if m == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("cannot reach the service manager: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("cannot tell the service manager: %w", err)
	}
	if _, err := conn.Write([]byte(strings.Join(messages, "\n"))); err != nil {
		return fmt.Errorf("cannot tell the service manager: %w", err)
	}
	return nil
}

// sendTimeout bounds a manager that reads nothing: a gateway does not wait for
// whoever only watches it.
const sendTimeout = time.Second
