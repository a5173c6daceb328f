package s6slots

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/supervise"
)

// A gateway that nobody could ask is known by its note, as long as that is
// believed; after that it counts as one that does not answer.
func TestNoteSparesTheQuestion(t *testing.T) {
	l := Lister{Dir: rundir.Dir(t.TempDir()), Home: t.TempDir()}
	socket := control.SocketPath(string(l.Dir), profile.Default)
	ln, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // a peer is hung up on: it learns nothing by asking
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			conn.Close()
		}
	}()
	since := time.Unix(100, 0).UTC()
	http := supervise.Platform{Name: supervise.OwnPlatform, State: supervise.Ready, Since: since}
	err = ln.Publish(control.Note{State: supervise.Ready, Since: since, Platforms: []supervise.Platform{http}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := l.List(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]supervise.Service{
		"of all": all.Services[0], "alone": l.Gateway(t.Context(), profile.Default).Services[0],
	} {
		if s.Name != "gateway-default" || s.State != supervise.Ready || !s.Since.Equal(since) || s.PID == nil || *s.PID != os.Getpid() ||
			s.MemoryBytes == nil || *s.MemoryBytes < 1<<20 || len(s.Platforms) != 1 || s.Platforms[0] != http {
			t.Errorf("%s: %+v", name, s)
		}
	}
	old := time.Now().Add(-time.Minute)
	if err := errors.Join(os.Chtimes(socket+".note", old, old), os.Chtimes(socket, old, old)); err != nil {
		t.Fatal(err)
	}
	if s := l.Gateway(t.Context(), profile.Default).Services[0]; s.State != supervise.Down || s.PID != nil {
		t.Errorf("after its note went stale: %+v", s)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
}
