package s6slots

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/s6"
)

const currentLog = "logs/gateways/default/current"

func (tr *tree) logger() proc.Process {
	tr.t.Helper()
	st, err := s6.ReadStatus(filepath.Join(tr.slot(), "log"))
	if err != nil {
		tr.t.Fatal(err)
	}
	p, err := proc.Read(st.PID)
	if err != nil {
		tr.t.Fatal(err)
	}
	return p
}

// shown is what the logger has written to its stdout: `docker logs`.
func (tr *tree) shown() string {
	tr.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fd/1", tr.logger().PID))
	if err != nil {
		tr.t.Fatal(err)
	}
	return string(b)
}

// The log directory of a profile is that of the container that came first. The
// logger of the second shows what its own service says, dies of nothing, and has the
// files as soon as they are free.
func TestLoggersOfTwoContainers(t *testing.T) {
	t.Parallel()
	first := started(t, "ready")
	line := func(tr *tree) string { return fmt.Sprintf("serving as %d\n", tr.status().PID) }
	first.eventually("the first has the files", func() bool { return strings.Contains(first.read(currentLog), line(first)) })

	second := newTreeOn(t, first.home, "ready")
	second.ensure()
	if err := second.m.Start(second.ctx(), second.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	second.eventually("the second's lines are shown", func() bool { return strings.Contains(second.shown(), "[default] "+line(second)) })
	stands := second.logger()
	if err := second.m.Restart(second.ctx(), second.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	second.eventually("its later lines are shown", func() bool { return strings.Contains(second.shown(), "[default] "+line(second)) })
	if strings.Contains(first.read(currentLog), line(second)) || stands.Comm == "s6-log" {
		t.Errorf("the second wrote into the first's files, or its logger is %q", stands.Comm)
	}

	if err := s6.Send(filepath.Join(first.slot(), "log"), s6.Down); err != nil {
		t.Fatal(err)
	}
	second.eventually("the second has the files", func() bool { return second.logger().Comm == "s6-log" })
	if p := second.logger(); p.PID != stands.PID || p.Start != stands.Start {
		t.Errorf("logger %d became %d: it has died", stands.PID, p.PID)
	}
	if err := second.m.Restart(second.ctx(), second.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	second.eventually("its lines are in the files", func() bool { return strings.Contains(second.read(currentLog), line(second)) })
	if !strings.Contains(second.shown(), "[default] "+line(second)) || strings.Contains(second.shown(), "unable to lock") {
		t.Errorf("the second showed %q", second.shown())
	}
}
