package app_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/audit"
	"github.com/hermesgw/hermes/internal/control"
	_ "github.com/hermesgw/hermes/internal/early"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/s6/s6test"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/s6slots"
	"github.com/hermesgw/hermes/internal/supervise/slot"
	"github.com/hermesgw/hermes/internal/testenv"
)

// askVar makes the test binary a command beside a tree, which says as whom it
// would act and whether it could.
const askVar = "SUPERVISION_TEST_ASK"

// entry makes the test binary the service of the slots of the tests; what they
// point to is early's.
func entry() (ran bool, code int) {
	switch {
	case os.Args[0] == "hermes":
		return true, standIn()
	case os.Getenv(askVar) != "":
		return true, ask()
	}
	return false, 0
}

// standIn is a service that is ready and ends with TERM.
func standIn() int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	args := strings.Join(os.Args, " ")
	if err := os.WriteFile(filepath.Join(os.Getenv("HERMES_HOME"), "args"), []byte(args), 0o644); err != nil {
		fmt.Println(err)
	}
	fmt.Fprintln(os.NewFile(slot.NotifyFD, "notify"))
	<-term
	return 0
}

func ask() int {
	s, err := app.FindSupervision(os.LookupEnv)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	notice, err := s.Enter()
	groups, _ := os.Getgroups()
	fmt.Printf("uid %d gid %d groups %v notice %q error %v home %s\n", os.Getuid(), os.Getgid(), groups, notice, err, s.Home)
	_, err = s.Manager("cli")
	fmt.Println("manager:", err)
	return 0
}

// tree is a live tree of ours and what a command finds in it.
type tree struct {
	*app.Supervision
	t   *testing.T
	run rundir.Dir
	dir string // data directory
}

func newTree(t *testing.T, mark rundir.Mark) *tree {
	t.Helper()
	base := t.TempDir()
	tr := &tree{t: t, run: rundir.Dir(filepath.Join(base, "run")), dir: filepath.Join(base, "data")}
	for _, dir := range []string{string(tr.run.Scan()), tr.run.Hermes(), filepath.Join(tr.dir, "profiles", "work")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if mark.UID == 0 {
		s6test.StartIn(t, string(tr.run.Scan()))
	} else {
		startAs(t, string(tr.run.Scan()), mark)
	}
	mark.Schema, mark.BootID, mark.Home, mark.Started = rundir.MarkSchema, "b", tr.dir, time.Now()
	if mark.UID == 0 {
		mark.UID = os.Getuid()
	}
	if err := tr.run.WriteMark(mark); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{string(tr.run.Scan()), tr.run.Hermes(), filepath.Join(tr.run.Hermes(), "tree.json")} {
		if err := os.Chown(path, mark.UID, -1); err != nil {
			t.Fatal(err)
		}
	}
	tr.Supervision = find(t, map[string]string{rundir.EnvVar: string(tr.run)})
	return tr
}

// startAs runs s6-svscan as the user of mark, as boot does.
func startAs(t *testing.T, scan string, mark rundir.Mark) {
	t.Helper()
	who := syscall.Credential{Uid: uint32(mark.UID), Gid: uint32(mark.GID)}
	for _, g := range mark.Groups {
		who.Groups = append(who.Groups, uint32(g))
	}
	if err := errors.Join(openParents(scan), os.Chown(scan, mark.UID, mark.GID)); err != nil {
		t.Fatal(err)
	}
	s6test.StartInAs(t, scan, who)
}

func find(t *testing.T, env map[string]string) *app.Supervision {
	t.Helper()
	s, err := app.FindSupervision(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (tr *tree) profile(name string) profile.Profile {
	tr.t.Helper()
	p, err := profile.Find(tr.dir, name)
	if err != nil {
		tr.t.Fatal(err)
	}
	return p
}

func (tr *tree) manager(by string) *s6slots.Manager {
	tr.t.Helper()
	m, err := tr.Manager(by)
	if err != nil {
		tr.t.Fatal(err)
	}
	return m
}

func (tr *tree) status(name string) s6.Status {
	tr.t.Helper()
	st, err := s6.ReadStatus(tr.run.Scan().Dir(name))
	if err != nil {
		tr.t.Fatal(err)
	}
	return st
}

func (tr *tree) wantIntent(p profile.Profile, want supervise.Want, by string) {
	tr.t.Helper()
	if i, ok, err := intent.Read(p.Home); err != nil || !ok || i.Want != want || i.By != by {
		tr.t.Errorf("intent of %s: %+v %v %v, want %s by %s", p.Name, i, ok, err, want, by)
	}
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestStartStopRestartGateway(t *testing.T) {
	tr := newTree(t, rundir.Mark{Profile: "default"})
	m, p, ctx := tr.manager("cli"), tr.profile("default"), limited(t)
	if err := tr.StopGateway(ctx, m, p, true); err != nil { // no slot: the wish is noted all the same
		t.Fatal(err)
	}
	tr.wantIntent(p, supervise.WantDown, "cli")
	if log, err := os.ReadFile(filepath.Join(tr.Home, audit.FileName)); err != nil || !strings.Contains(string(log), "slot=gateway-default ask=stop by=cli ") {
		t.Errorf("a stop of what has no slot left no line in the audit log: %s %v", log, err)
	}
	if err := tr.StartGateway(ctx, m, p, []string{"-v"}, true); err != nil {
		t.Fatal(err)
	}
	tr.wantIntent(p, supervise.WantUp, "cli")
	if args, _ := os.ReadFile(filepath.Join(tr.dir, "args")); string(args) != "hermes gateway run --replace -v" {
		t.Errorf("the slot runs %q", args)
	}
	pid := tr.status("gateway-default").PID
	if err := tr.RestartGateway(ctx, m, p, true); err != nil || tr.status("gateway-default").PID == pid {
		t.Errorf("restart: %v, pid %d", err, pid)
	}
	if args, _ := os.ReadFile(filepath.Join(tr.dir, "args")); string(args) != "hermes gateway run --replace -v" {
		t.Errorf("after a restart the slot runs %q", args)
	}
	if err := tr.StopGateway(ctx, m, p, true); err != nil || tr.status("gateway-default").WantUp {
		t.Errorf("stop: %v", err)
	}
	tr.wantIntent(p, supervise.WantDown, "cli")
	if err := tr.RestartGateway(ctx, m, tr.profile("work"), true); err != nil { // never registered: started
		t.Fatal(err)
	}
	tr.wantIntent(tr.profile("work"), supervise.WantUp, "cli")
}

// The dashboard's commands are those of the command line, under its own name;
// where there is nothing to command it has none.
func TestDashboardOperator(t *testing.T) {
	tr := newTree(t, rundir.Mark{Profile: "default"})
	p, ctx, op := tr.profile("work"), limited(t), tr.DashboardOperator()
	for _, step := range []struct {
		action supervise.Command
		want   supervise.Want
	}{{supervise.CommandStart, supervise.WantUp}, {supervise.CommandRestart, supervise.WantUp}, {supervise.CommandStop, supervise.WantDown}} {
		if err := op.Operate(ctx, step.action, "work", "from 192.0.2.1"); err != nil {
			t.Fatalf("%s: %v", step.action, err)
		}
		tr.wantIntent(p, step.want, "dashboard")
		if st := tr.status("gateway-work"); st.Serving() != (step.want == supervise.WantUp) {
			t.Errorf("%s returned before it was done: %+v", step.action, st)
		}
	}
	log, err := os.ReadFile(filepath.Join(tr.Home, audit.FileName))
	if err != nil || strings.Count(string(log), " by=dashboard ") < 3 || strings.Count(string(log), `why="from 192.0.2.1"`) != 3 {
		t.Errorf("the audit log says %s %v", log, err)
	}
	if err := op.Operate(ctx, supervise.CommandStop, "nobody", ""); exitcode.Of(err) != exitcode.NoSuch {
		t.Errorf("a profile that is not there: %v", err)
	}
	if err := op.Operate(ctx, "kill", "work", ""); err == nil {
		t.Error("did what there is no command for")
	}
	tr.Found.Refusal = "not yours"
	if op := tr.DashboardOperator(); op != nil {
		t.Error("a tree of another user is commanded")
	}
}

// A guard that gave the new name its slot before the rename was through left the
// logs under the old name.
func TestRenameMovesTheLogsBeforeTheGuardComes(t *testing.T) {
	tr := newTree(t, rundir.Mark{Profile: "default"})
	m, p, ctx := tr.manager("cli"), tr.profile("work"), limited(t)
	if err := tr.StartGateway(ctx, m, p, nil, true); err != nil {
		t.Fatal(err)
	}
	logs := filepath.Join(tr.Home, "logs", "gateways")
	err := os.MkdirAll(filepath.Join(logs, "work"), 0o755) // the logger may not have come to it yet
	if err == nil {
		err = os.WriteFile(filepath.Join(logs, "work", "@old.s"), []byte("before"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	var guard sync.WaitGroup
	guard.Go(func() {
		home := filepath.Join(tr.Home, "profiles", "office")
		for _, err := os.Lstat(home); err != nil && ctx.Err() == nil; _, err = os.Lstat(home) {
			time.Sleep(time.Millisecond)
		}
		// What the logger of the new slot does first.
		err := os.MkdirAll(filepath.Join(logs, "office"), 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(logs, "office", "lock"), nil, 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if _, note, err := tr.RenameProfile(ctx, "cli", "work", "office"); note != "" || err != nil {
		t.Error(note, err)
	}
	guard.Wait()
	if text, err := os.ReadFile(filepath.Join(logs, "office", "@old.s")); string(text) != "before" {
		t.Errorf("the old log under the new name: %q %v", text, err)
	}
	if _, err := os.Lstat(filepath.Join(logs, "work")); err == nil {
		t.Error("there are logs under the old name")
	}
}

// The container's credentials and ports belong to one profile's slot.
func TestOneProfileOwnsTheEnvironment(t *testing.T) {
	for _, owner := range []string{"default", "work"} {
		t.Run(owner, func(t *testing.T) {
			tr := newTree(t, rundir.Mark{Profile: owner})
			for _, by := range []string{"cli", intent.ByMainProgram} {
				for _, name := range []string{"default", "work"} {
					if err := tr.StartGateway(limited(t), tr.manager(by), tr.profile(name), []string{}, false); err != nil {
						t.Fatal(err)
					}
					spec, err := slot.ReadSpec(tr.run.Scan().Dir(supervise.GatewayName(name)))
					if err != nil || spec.OwnsEnvironment != (name == owner) || spec.Home != tr.dir {
						t.Errorf("%s, started by %s: %+v, %v", name, by, spec, err)
					}
				}
			}
		})
	}
}

func TestRedirectSlot(t *testing.T) {
	tr := newTree(t, rundir.Mark{Profile: "work"})
	p, ctx := tr.profile("work"), limited(t)
	redirect := tr.RedirectSlot(p, []string{"-v"})
	if err := redirect.Withdraw(ctx); err != nil {
		t.Errorf("nothing to withdraw: %v", err)
	}
	if err := redirect.Start(ctx); err != nil {
		t.Fatal(err)
	}
	tr.wantIntent(p, supervise.WantUp, intent.ByMainProgram)
	s6test.Eventually(t, "the slot serves", func() bool { return tr.status("gateway-work").Serving() })
	if err := redirect.Withdraw(ctx); err != nil {
		t.Fatal(err)
	}
	if st := tr.status("gateway-work"); st.WantUp || st.Up {
		t.Errorf("withdrawn: %+v", st)
	}
	// The next main program says without flags what the last one said with some.
	if err := tr.RedirectSlot(p, nil).Start(ctx); err != nil {
		t.Fatal(err)
	}
	spec, err := slot.ReadSpec(tr.run.Scan().Dir("gateway-work"))
	if got := strings.Join(spec.Args, " "); err != nil || got != "-p work gateway run --replace" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNothingStartsWhileTheContainerStops(t *testing.T) {
	tr := newTree(t, rundir.Mark{Profile: "default"})
	if err := os.WriteFile(tr.run.StoppingFlag(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := tr.StartGateway(limited(t), tr.manager("cli"), tr.profile("default"), nil, true)
	if !errors.Is(err, supervise.ErrStopping) {
		t.Errorf("start: %v", err)
	}
}

func TestWithoutATree(t *testing.T) {
	s := find(t, map[string]string{rundir.EnvVar: t.TempDir(), "HERMES_HOME": t.TempDir()})
	if s.Live() {
		t.Skip("a tree of hermes runs on this machine")
	}
	_, err := s.Manager("cli")
	if exitcode.Of(err) != exitcode.Failed || !strings.Contains(err.Error(), "hermes gateway run") {
		t.Errorf("manager: %v", err)
	}
	report, err := s.Report(t.Context(), true)
	if err != nil || report.Manager != "none" || len(report.Services) != 2 {
		t.Errorf("%+v, %v", report, err)
	}
	if op := s.DashboardOperator(); op != nil {
		t.Error("a dashboard without a tree may command it")
	}
	if err := s.RedirectSlot(profile.Profile{Name: "default"}, nil).Start(t.Context()); err == nil {
		t.Error("redirected into nothing")
	}
}

func TestWhereTheDataIs(t *testing.T) {
	tr := newTree(t, rundir.Mark{Profile: "default"})
	if tr.Home != tr.dir {
		t.Errorf("beside a tree: %q, want the tree's %q", tr.Home, tr.dir)
	}
	chosen := t.TempDir()
	if s := find(t, map[string]string{rundir.EnvVar: string(tr.run), "HERMES_HOME": chosen}); s.Home != chosen {
		t.Errorf("chosen: %q, want %q", s.Home, chosen)
	}
	user := t.TempDir()
	t.Setenv("HOME", user)
	s := find(t, map[string]string{rundir.EnvVar: t.TempDir(), "HERMES_HOME": ""})
	if s.Found.Mark == nil && s.Home != filepath.Join(user, ".hermes") {
		t.Errorf("on a host: %q", s.Home)
	}
}

// stub answers on a control socket.
type stub struct{ supervised bool }

func (h stub) Status() control.Status {
	return control.Status{Schema: control.Schema, PID: 4711, State: supervise.Ready, Supervised: h.supervised}
}
func (stub) Drain(control.DrainRequest) error { return nil }
func (stub) Stacks() []byte                   { return nil }

func TestRefuseBesideForeground(t *testing.T) {
	run, err := os.MkdirTemp("", "run") // short: the path of a socket has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	s := &app.Supervision{Found: rundir.Found{Dir: rundir.Dir(run), Tree: runmode.TreeOurs}}
	p := profile.Profile{Name: "default"}
	if err := s.RefuseBesideForeground(t.Context(), p); err != nil {
		t.Errorf("beside nothing: %v", err)
	}
	for _, supervised := range []bool{true, false} {
		ln, err := control.Listen(control.SocketPath(run, "default"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- control.Serve(ctx, ln, stub{supervised}, nil) }()
		err = s.RefuseBesideForeground(t.Context(), p)
		if (err == nil) != supervised || err != nil && !strings.Contains(err.Error(), "runs here in the foreground (pid 4711)") {
			t.Errorf("beside a gateway, supervised=%v: %v", supervised, err)
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// As a guest in s6-overlay, whose supervisors are root, the slot drops root.
func TestSpecInAnOverlayTree(t *testing.T) {
	t.Setenv("PUID", "77")
	t.Setenv("HERMES_STOP_TIMEOUT", "4")
	s := &app.Supervision{Found: rundir.Found{Dir: "/run", Tree: runmode.TreeOverlay}, Home: "/data"}
	spec, err := s.GatewaySpec(profile.Profile{Name: "default"}, nil, true)
	if err != nil || spec.StopTimeout != 4*time.Second {
		t.Fatalf("%+v, %v", spec, err)
	}
	if os.Getuid() == 0 && (spec.UID != 77 || spec.GID != 10000) {
		t.Errorf("runs as %d:%d, want 77:10000", spec.UID, spec.GID)
	}
	s.Found.Tree = runmode.TreeOurs
	if spec, err := s.GatewaySpec(profile.Profile{Name: "default"}, nil, true); err != nil || spec.UID != 0 {
		t.Errorf("in our own tree: %d, %v", spec.UID, err)
	}
	t.Setenv("HERMES_STOP_TIMEOUT", "soon")
	if _, err := s.GatewaySpec(profile.Profile{Name: "default"}, nil, true); exitcode.Of(err) != exitcode.Config {
		t.Errorf("a wrong setting: %v", err)
	}
}

// `docker exec` comes as root: before anything is opened it becomes the user
// of the tree. A stranger is told as whom to come.
func TestWhoACommandBecomes(t *testing.T) {
	testenv.Need(t, "root")
	tr := newTree(t, rundir.Mark{Profile: "default", UID: 10000, GID: 10001, Groups: []int{10001}})
	dir, err := os.MkdirTemp("", "app") // the parents of t.TempDir keep other users out
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := filepath.Join(dir, "hermes")
	b, err := os.ReadFile(os.Args[0])
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(binary, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32][]string{
		0:     {"uid 10000 gid 10001 groups [10001] notice \"\" error <nil> home " + tr.dir},
		12345: {"uid 12345 gid 12345", "manager: cannot use", "run this command as "},
	} {
		cmd := exec.Command(binary)
		cmd.Env = []string{askVar + "=1", rundir.EnvVar + "=" + string(tr.run), "GORACE=atexit_sleep_ms=0"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		for _, text := range want {
			if err != nil || !strings.Contains(string(out), text) {
				t.Errorf("uid %d: %v, said\n%s\nwant %s", uid, err, out, text)
			}
		}
	}
}

// openParents lets everybody pass to path, which lies in a test's own directory.
func openParents(path string) error {
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}
