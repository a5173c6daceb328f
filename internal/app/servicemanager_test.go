package app_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/app"
)

// serviceManager is the receiving end of sd_notify(3).
type serviceManager struct {
	t      *testing.T
	socket *net.UnixConn
	path   string
}

func newServiceManager(t *testing.T) serviceManager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return serviceManager{t, socket, path}
}

// next is the next message; ok is false when none came within wait.
func (m serviceManager) next(wait time.Duration) (text string, ok bool) {
	m.t.Helper()
	if err := m.socket.SetReadDeadline(time.Now().Add(wait)); err != nil {
		m.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := m.socket.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		m.t.Fatal(err)
	}
	return string(buf[:n]), err == nil
}

// await reads on until a message has line, and returns it.
func (m serviceManager) await(line string) string {
	m.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if text, ok := m.next(patience); ok && strings.Contains("\n"+text+"\n", "\n"+line+"\n") {
			return text
		}
	}
	m.t.Fatalf("no %s within %s", line, patience)
	return ""
}

func TestServiceManagerIsTold(t *testing.T) {
	m := newServiceManager(t)
	c := spawn(t, place(t), "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000")
	if text, _ := m.next(patience); !strings.HasPrefix(text, "READY=1\nSTATUS=ready, API on 127.0.0.1:") {
		t.Errorf("the first message is %q", text)
	}
	c.waitReady()
	m.await("WATCHDOG=1")
	c.signal(syscall.SIGTERM)
	m.await("STOPPING=1")
	if code := c.code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// The watchdog is fed by answers, not by a timer: a gateway in a deadlock, all
// of whose goroutines but some go on, stops feeding it.
func TestWatchdogStarvesWhenTheGatewayIsDeaf(t *testing.T) {
	m := newServiceManager(t)
	const interval = 200 * time.Millisecond
	c := spawn(t, place(t), "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000", app.DeadlockVar+"=1").waitReady()
	m.await("WATCHDOG=1")
	if err := c.client().Deadlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		if _, told := m.next(10 * interval); !told {
			break // ten times what a manager waits
		}
		if time.Now().After(deadline) {
			t.Fatal("a deaf gateway goes on feeding the watchdog")
		}
	}
	if !c.alive() {
		t.Error("it is not deaf but gone")
	}
	c.signal(syscall.SIGKILL)
}
