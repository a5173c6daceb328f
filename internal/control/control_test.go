package control_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/testenv"
)

// dialVar makes this test binary a client that dials a socket and reports.
const dialVar = "CONTROL_TEST_DIAL"

func TestMain(m *testing.M) {
	if path := os.Getenv(dialVar); path != "" {
		_, err := control.Dial(path).Status(context.Background())
		if err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type fake struct {
	drained chan control.DrainRequest
	refuse  error
}

func (f *fake) Status() control.Status {
	return control.Status{
		Schema: control.Schema, Profile: "work", PID: 42, State: supervise.Standby,
		Holder: &supervise.Holder{Host: "web-1", PID: 3, Since: time.Unix(1, 0).UTC()}, Platforms: []supervise.Platform{},
	}
}

func (f *fake) Drain(r control.DrainRequest) error {
	if f.refuse != nil {
		return f.refuse
	}
	f.drained <- r
	return nil
}
func (f *fake) Stacks() []byte { return []byte("goroutine 1") }

func serve(t *testing.T, path string, h control.Handler) (stop func() error) {
	t.Helper()
	ln, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "api "+r.URL.Path) })
	go func() { done <- control.Serve(ctx, ln, h, api) }()
	var ended error
	var once bool
	stop = func() error {
		if !once {
			once = true
			cancel()
			ended = <-done
		}
		return ended
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func TestBothSides(t *testing.T) {
	path := control.SocketPath(t.TempDir(), "work")
	f := &fake{drained: make(chan control.DrainRequest, 1)}
	stop := serve(t, path, f)
	c := control.Dial(path)

	s, err := c.Status(t.Context())
	if err != nil || s.PID != 42 || s.State != supervise.Standby || s.Holder.Host != "web-1" {
		t.Errorf("Status = %+v, %v", s, err)
	}
	want := control.DrainRequest{By: "pid 9", Reason: "test"}
	if err := c.Drain(t.Context(), want); err != nil || <-f.drained != want {
		t.Errorf("Drain: %v", err)
	}
	if text, err := c.Stacks(t.Context()); err != nil || string(text) != "goroutine 1" {
		t.Errorf("Stacks = %q, %v", text, err)
	}
	resp, err := c.HTTPClient().Get(control.BaseURL + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "api /v1/models" {
		t.Errorf("the API answered %q", body)
	}
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, control.ErrNoGateway) {
		t.Errorf("after the end: %v", err)
	}
}

func TestRefusedDrainCarriesTheReason(t *testing.T) {
	path := control.SocketPath(t.TempDir(), "work")
	serve(t, path, &fake{refuse: errors.New("not now")})
	if err := control.Dial(path).Drain(t.Context(), control.DrainRequest{}); err == nil || err.Error() != "not now" {
		t.Errorf("got %v", err)
	}
}

func TestOnlyOneListensAndAStaleSocketIsReplaced(t *testing.T) {
	path := control.SocketPath(t.TempDir(), "default")
	stop := serve(t, path, &fake{})
	if _, err := control.Listen(path); !errors.Is(err, control.ErrInUse) {
		t.Errorf("a second listener got %v", err)
	}
	if _, err := control.Dial(path).Status(t.Context()); err != nil {
		t.Errorf("the first one suffered: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	dead, err := net.Listen("unix", path) // a socket that nobody answers, as kill -9 leaves it
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	if _, err := control.Dial(path).Status(t.Context()); !errors.Is(err, control.ErrNoGateway) {
		t.Errorf("a stale socket gives %v", err)
	}
	serve(t, path, &fake{})
	if _, err := control.Dial(path).Status(t.Context()); err != nil {
		t.Errorf("over a stale socket: %v", err)
	}
}

func TestSocketAndDirectoryArePrivate(t *testing.T) {
	path := control.SocketPath(t.TempDir(), "default")
	serve(t, path, &fake{})
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", p, fi.Mode(), err, want)
		}
	}
}

func TestLongRunDirectoryIsRefusedInWords(t *testing.T) {
	path := control.SocketPath("/"+strings.Repeat("x", 100), "default")
	_, err := control.Listen(path)
	if exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), "HERMES_RUN_DIR") {
		t.Errorf("got %v", err)
	}
}

// Permissions are opened wide here, so that only the check of the peer is left.
func TestPeerOfAnotherUserIsHungUpOn(t *testing.T) {
	testenv.Need(t, "root")
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := control.SocketPath(dir, "default")
	serve(t, path, &fake{})
	program := filepath.Join(dir, "client")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for p, mode := range map[string]os.FileMode{dir: 0o755, filepath.Dir(path): 0o755, path: 0o666} {
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	for uid, allowed := range map[uint32]bool{0: true, 12345: false} {
		cmd := exec.Command(program)
		cmd.Dir, cmd.Env = "/", []string{dialVar + "=" + path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if (err == nil) != allowed {
			t.Errorf("uid %d: allowed %v, want %v: %v %s", uid, err == nil, allowed, err, out)
		}
		if strings.Contains(string(out), "permission denied") {
			t.Errorf("uid %d was stopped by the mode, not by the check: %s", uid, out)
		}
	}
}
