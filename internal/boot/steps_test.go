package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6/s6test"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/testenv"
)

// newBooter is a boot over a root directory of its own, as the caller.
func newBooter(t *testing.T, env ...string) (*booter, *bytes.Buffer) {
	t.Helper()
	var said bytes.Buffer
	b := &booter{Options: Options{Root: t.TempDir(), Stderr: &said}, env: env}
	for _, dir := range []string{"run", "tmp", "data"} {
		if err := os.Mkdir(b.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.home = b.path("data")
	b.id = identity{uid: os.Getuid(), gid: os.Getgid()}
	return b, &said
}

func needRoot(t *testing.T) {
	t.Helper()
	testenv.Need(t, "root")
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), testenv.WriteFile(path, []byte(content), mode)); err != nil {
		t.Fatal(err)
	}
}

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(fi.Sys().(*syscall.Stat_t).Uid)
}

// A container's own layer keeps /run over a restart: what is left there must
// not be taken for this boot's.
func TestPrepareRunDirWipesWhatAnEarlierBootLeft(t *testing.T) {
	b, _ := newBooter(t)
	dir := rundir.Dir(b.path("run"))
	for _, stale := range []string{"service/gateway-gone/run", "hermes/tree.json", "hermes/stopping", "hermes/exitcode", "s6/container_environment/OLD"} {
		write(t, filepath.Join(string(dir), stale), "stale", 0o644)
	}
	for _, foreign := range []string{"s6/basedir/x", "lock/y", "utmp"} {
		write(t, filepath.Join(string(dir), foreign), "not ours", 0o644)
	}
	if err := b.prepareRunDir(dir); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{"service": 0o755, "hermes": 0o711, "s6": 0o755, "s6/container_environment": 0o700} {
		fi, err := os.Stat(filepath.Join(string(dir), path))
		if err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", path, fi, err, mode)
		}
		if entries, _ := os.ReadDir(filepath.Join(string(dir), path)); path != "s6" && len(entries) > 0 {
			t.Errorf("%s still holds %v", path, entries)
		}
	}
	for _, foreign := range []string{"s6/basedir/x", "lock/y", "utmp"} {
		if _, err := os.Stat(filepath.Join(string(dir), foreign)); err != nil {
			t.Errorf("what is not ours was removed: %v", err)
		}
	}
}

func TestPrepareRunDirRefusesALiveTree(t *testing.T) {
	b, _ := newBooter(t)
	dir := rundir.Dir(b.path("run"))
	write(t, filepath.Join(string(dir.Scan()), "precious", "x"), "x", 0o644)
	s6test.StartIn(t, string(dir.Scan()))
	if err := b.prepareRunDir(dir); err == nil || !strings.Contains(err.Error(), "a live s6-svscan serves") {
		t.Errorf("a live tree: %v", err)
	}
	if _, err := os.Stat(filepath.Join(string(dir.Scan()), "precious", "x")); err != nil {
		t.Errorf("the live tree was touched: %v", err)
	}
}

func TestChooseRunDir(t *testing.T) {
	b, _ := newBooter(t)
	if dir, err := b.chooseRunDir(); err != nil || string(dir) != b.path("run") {
		t.Errorf("a writable /run: %q, %v", dir, err)
	}
	own := b.path("tmp", fmt.Sprintf("hermes-%d", b.id.uid))
	unusable(t, b.path("run"))
	if dir, err := b.chooseRunDir(); err != nil || string(dir) != own {
		t.Errorf("an unusable /run: %q, %v; want %q", dir, err, own)
	}
	if fi, err := os.Stat(own); err != nil || fi.Mode().Perm()&0o022 != 0 {
		t.Errorf("%v, %v", fi, err)
	}
	b.env = environment{"XDG_RUNTIME_DIR=" + b.path("xdg")}
	if dir, err := b.chooseRunDir(); err != nil || string(dir) != b.path("xdg") {
		t.Errorf("with a runtime directory: %q, %v", dir, err)
	}
	b.env = environment{"HERMES_RUN_DIR=" + b.path("chosen")}
	if dir, err := b.chooseRunDir(); err != nil || string(dir) != b.path("chosen") {
		t.Errorf("chosen: %q, %v", dir, err)
	}
	unusable(t, b.path("chosen"))
	_, err := b.chooseRunDir() // no silent other one
	if exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), "cannot use HERMES_RUN_DIR="+b.path("chosen")) {
		t.Errorf("an unusable choice: %v", err)
	}
	b.env = nil
	unusable(t, b.path("tmp"))
	_, err = b.chooseRunDir()
	if exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), "give one with --tmpfs /run or --tmpfs /tmp") {
		t.Errorf("nowhere to write: %v", err)
	}
}

// unusable puts a file in the place of a directory: that stops root too.
func unusable(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// A directory that somebody else prepared in /tmp is not used.
func TestMakeTopRefusesWhatOthersPrepared(t *testing.T) {
	needRoot(t)
	b, _ := newBooter(t)
	b.id = identity{uid: 10000, gid: 10000, drop: true}
	for name, c := range map[string]struct {
		uid  int
		mode os.FileMode
		want string // in the error, "" for none
	}{
		"of root":                         {0, 0o755, ""},
		"of root, for everybody, as /tmp": {0, 0o777 | os.ModeSticky, ""},
		"of a stranger":                   {666, 0o700, "belongs to uid 666"},
		"for everybody":                   {10000, 0o777, "/top "},
		"for a group":                     {10000, 0o770, "/top "},
	} {
		dir := b.path("tmp", "top")
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.Chown(dir, c.uid, c.uid), os.Chmod(dir, c.mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.makeTop(dir); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	link := b.path("tmp", "link")
	if err := os.Symlink(b.path("data"), link); err != nil {
		t.Fatal(err)
	}
	if _, err := b.makeTop(link); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("a link: %v", err)
	}
	fresh := b.path("tmp", "fresh")
	if err := b.prepareRunDir(rundir.Dir(fresh)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "service", "hermes", "s6/container_environment"} {
		if got := ownerOf(t, filepath.Join(fresh, path)); got != 10000 {
			t.Errorf("%s in a fresh one belongs to %d", path, got)
		}
	}
}

// Root gives away the few paths that are hermes's own, whatever else lies on
// the volume, and follows no link out of it.
func TestPrepareHomeChownsOnlyItsOwnPaths(t *testing.T) {
	needRoot(t)
	b, said := newBooter(t)
	b.id = identity{uid: 10000, gid: 10000, drop: true}
	outside := b.path("outside")
	write(t, filepath.Join(outside, "gateways"), "x", 0o600)
	write(t, filepath.Join(outside, "secret"), "x", 0o600)
	for _, name := range []string{"hermes.db", "config.yaml", "profiles/work/.env", "profiles/work/notes/x", "profiles/Not a profile/.env", "photos/cat.jpg"} {
		write(t, filepath.Join(b.home, name), "x", 0o600)
	}
	if err := os.Chown(filepath.Join(b.home, "config.yaml"), 555, 555); err != nil {
		t.Fatal(err)
	}
	// logs/gateways would lead outside, .env is a link.
	if err := errors.Join(os.Symlink(outside, filepath.Join(b.home, "logs")), os.Symlink(filepath.Join(outside, "secret"), filepath.Join(b.home, ".env"))); err != nil {
		t.Fatal(err)
	}
	if err := b.prepareHome(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		b.home: 10000, filepath.Join(b.home, "hermes.db"): 10000, filepath.Join(b.home, "profiles"): 10000,
		filepath.Join(b.home, "config.yaml"): 555, filepath.Join(b.home, "photos"): 0, filepath.Join(b.home, "photos", "cat.jpg"): 0,
		filepath.Join(b.home, "profiles", "work"): 10000, filepath.Join(b.home, "profiles", "work", ".env"): 10000,
		filepath.Join(b.home, "profiles", "work", "notes"): 0, filepath.Join(b.home, "profiles", "Not a profile"): 0, outside: 0, filepath.Join(outside, "gateways"): 0, filepath.Join(outside, "secret"): 0,
	} {
		if got := ownerOf(t, path); got != want {
			t.Errorf("%s belongs to %d, want %d", path, got, want)
		}
	}
	if said.Len() > 0 {
		t.Errorf("said %q", said)
	}
}

func TestPrepareHomeMakesIt(t *testing.T) {
	b, _ := newBooter(t)
	b.home = b.path("new", "data")
	if err := b.prepareHome(); err != nil {
		t.Fatal(err)
	}
	if err := b.probeHome(); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(b.home); len(entries) > 0 {
		t.Errorf("the probe left %v", entries)
	}
	b.home = filepath.Join(b.path("run"), "file", "data")
	write(t, filepath.Dir(b.home), "", 0o644)
	if err := b.prepareHome(); exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), "mount a writable volume there") {
		t.Errorf("no place for it: %v", err)
	}
}

// A broken volume stops a gateway, and nothing else: `docker run IMAGE bash`
// is how to mend it.
func TestProbe(t *testing.T) {
	b, said := newBooter(t)
	b.home = b.path("none")
	if err := b.probe(t.Context()); err != nil || !strings.Contains(said.String(), "cannot write "+b.home) {
		t.Errorf("bash beside a broken volume: %v, said %q", err, said)
	}
	b.main.GatewayRun = true
	if err := b.probe(t.Context()); exitcode.Of(err) != exitcode.Config {
		t.Errorf("a gateway on a broken volume: %v", err)
	}
}

func TestHooksRunInOrder(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	hooks := filepath.Join(dir, "hooks")
	for name, body := range map[string]string{
		"10-b": "echo $0 $VAR >> " + log, "02-a": "echo $0 $VAR >> " + log, "99-c": "echo $0 $VAR >> " + log,
		"50-fails": "echo $0 $VAR >> " + log + "; exit 3",
	} {
		write(t, filepath.Join(hooks, name), "#!/bin/sh\n"+body+"\n", 0o755)
	}
	write(t, filepath.Join(hooks, "60-data"), "not a program", 0o644)
	write(t, filepath.Join(hooks, "70-dir", "x"), "", 0o644)
	failed := runHooks(t.Context(), hooks, environment{"VAR=v"}, 0)
	var want strings.Builder
	for _, name := range []string{"02-a", "10-b", "50-fails", "99-c"} {
		fmt.Fprintf(&want, "%s v\n", filepath.Join(hooks, name))
	}
	if b, _ := os.ReadFile(log); string(b) != want.String() {
		t.Errorf("ran\n%s\nwant\n%s", b, want.String())
	}
	if len(failed) != 2 {
		t.Fatalf("failed: %v", failed)
	}
	text := fmt.Sprintf("%s/50-fails failed as uid %d: exit status 3; hooks run as the service user, never as root: do what needs root in the Dockerfile", hooks, os.Getuid())
	if failed[0].Error() != text || !strings.Contains(failed[1].Error(), "60-data") {
		t.Errorf("failures %v, want %q and 60-data", failed, text)
	}
	if failed := runHooks(t.Context(), filepath.Join(dir, "none"), nil, 0); failed != nil {
		t.Errorf("no hooks: %v", failed)
	}
}

func TestHookThatHangsIsEnded(t *testing.T) {
	hooks := t.TempDir()
	write(t, filepath.Join(hooks, "1"), "#!/bin/sh\nexec sleep 1000\n", 0o755)
	failed := runHooks(t.Context(), hooks, environment(os.Environ()), 50*time.Millisecond)
	if len(failed) != 1 || !strings.Contains(failed[0].Error(), "still running after its time") {
		t.Errorf("%v", failed)
	}
}

func TestFailedInitHook(t *testing.T) {
	b, said := newBooter(t)
	write(t, b.path(initHooks, "1"), "#!/bin/sh\nexit 3\n", 0o755)
	for value, fatal := range map[string]bool{"": false, "0": false, "1": false, "2": true} {
		said.Reset()
		b.env = environment{"S6_BEHAVIOUR_IF_STAGE2_FAILS=" + value}
		b.run = rundir.Dir(t.TempDir())
		if err := errors.Join(os.MkdirAll(b.run.Environment(), 0o700), b.env.snapshot(b.run.Environment())); err != nil {
			t.Fatal(err)
		}
		if err := b.runInitHooks(context.Background()); (err != nil) != fatal {
			t.Errorf("%q: %v", value, err)
		}
		if !strings.Contains(said.String(), "cont-init.d/1 failed as uid") {
			t.Errorf("%q: said %q", value, said)
		}
	}
}

// Which slots a container starts with, from its command, its environment and
// what is stored.
func TestWhichSlotsStart(t *testing.T) {
	run := func(profile string) MainProgram {
		return MainProgram{GatewayRun: true, Profile: profile, IsCommand: true}
	}
	foreground := run("")
	foreground.NoSupervise = true
	for name, c := range map[string]struct {
		main MainProgram
		env  environment
		want string // up slots, then the down ones in parentheses
	}{
		"gateway run":                  {run(""), nil, "gateway-kept gateway-default guard --reconcile"},
		"gateway run of a profile":     {run("work"), nil, "gateway-kept gateway-work guard --reconcile"},
		"gateway run of no profile":    {run("none"), nil, "gateway-kept guard --reconcile"},
		"--no-supervise":               {foreground, nil, "(gateway-default)"},
		"the variable":                 {run(""), environment{"HERMES_GATEWAY_NO_SUPERVISE=yes"}, "(gateway-default)"},
		"the variable, with a typo":    {run(""), environment{"HERMES_GATEWAY_NO_SUPERVISE=y"}, "gateway-kept gateway-default guard --reconcile"},
		"foreground of a kept profile": {MainProgram{GatewayRun: true, Profile: "kept", NoSupervise: true}, environment{"HERMES_RECONCILE=1"}, "guard --reconcile --leave kept (gateway-kept)"},
		"bash":                         {MainProgram{}, nil, ""},
		"bash that reconciles":         {MainProgram{}, environment{"HERMES_RECONCILE=1"}, "gateway-kept guard --reconcile"},
		"no reconciling":               {run(""), environment{"HERMES_RECONCILE=0"}, "gateway-default guard"},
		"a dashboard":                  {MainProgram{}, environment{"HERMES_DASHBOARD=true"}, "dashboard"},
		"a dashboard, with a typo":     {MainProgram{}, environment{"HERMES_DASHBOARD=on"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := newBooter(t)
			b.main, b.run = c.main, rundir.Dir(b.path("run"))
			for profile, want := range map[string]supervise.Want{"kept": supervise.WantUp, "stopped": supervise.WantDown, "work": ""} {
				home := filepath.Join(b.home, "profiles", profile)
				if err := os.MkdirAll(home, 0o700); err != nil {
					t.Fatal(err)
				}
				if want == "" {
					continue
				}
				if err := intent.Write(home, intent.Intent{Want: want, By: "cli", At: time.Now()}); err != nil {
					t.Fatal(err)
				}
			}
			if got := slotsOf(t, b, c.env); got != c.want {
				t.Errorf("slots %s, want %s", got, c.want)
			}
		})
	}
}

// A profile that does not start is not passed over in silence, and none is told of
// twice.
func TestWhatCannotStartIsNamedOnce(t *testing.T) {
	b, said := newBooter(t)
	b.main, b.run = MainProgram{GatewayRun: true, IsCommand: true}, rundir.Dir(b.path("run"))
	work := filepath.Join(b.home, "profiles", "work")
	if err := errors.Join(os.MkdirAll(work, 0o700), os.Symlink(t.TempDir(), filepath.Join(b.home, "profiles", "moved")),
		os.WriteFile(filepath.Join(work, intent.FileName), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := slotsOf(t, b, nil); got != "gateway-default guard --reconcile" {
		t.Errorf("slots %s", got)
	}
	for _, want := range []string{"/profiles/moved is no profile: it is a link", "hermes: gateway-work: cannot read the intent in "} {
		if strings.Count(said.String(), want) != 1 {
			t.Errorf("%q is not there once: %s", want, said)
		}
	}
	if n := strings.Count(said.String(), "cannot read the intent"); n != 1 {
		t.Errorf("the intent is told of %d times: %s", n, said)
	}
}

func slotsOf(t *testing.T, b *booter, env environment) string {
	t.Helper()
	var up, down []string
	b.WriteSlot = func(dir string, spec supervise.Spec, isDown bool) error {
		if isDown {
			down = append(down, "("+spec.Name+")")
		} else if up = append(up, spec.Name); spec.Kind == supervise.KindGuard {
			up = append(up, spec.Args[2:]...) // after `boot guard`
		}
		return nil
	}
	if err := b.prepareRunDir(b.run); err != nil {
		t.Fatal(err)
	}
	b.env = env
	if err := errors.Join(env.snapshot(b.run.Environment()), b.runInitHooks(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := b.writeSlots(t.Context()); err != nil {
		t.Fatal(err)
	}
	return strings.Join(slices.Concat(up, down), " ")
}

// The container's command overrules a stop, and says so; --no-supervise and
// others leave what is stored alone.
func TestIntentOfTheMainProgram(t *testing.T) {
	for name, c := range map[string]struct {
		main MainProgram
		want supervise.Want
		by   string
	}{
		"gateway run":    {MainProgram{GatewayRun: true}, supervise.WantUp, intent.ByMainProgram},
		"--no-supervise": {MainProgram{GatewayRun: true, NoSupervise: true}, supervise.WantDown, "cli"},
		"bash":           {MainProgram{}, supervise.WantDown, "cli"},
	} {
		b, said := newBooter(t)
		b.main, b.run = c.main, rundir.Dir(b.path("run"))
		if err := intent.Write(b.home, intent.Intent{Want: supervise.WantDown, By: "cli", At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		slotsOf(t, b, nil)
		got, ok, err := intent.Read(b.home)
		if err != nil || !ok || got.Want != c.want || got.By != c.by {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if overruled := strings.Contains(said.String(), "gateway-default was stopped by cli at"); overruled != (c.want == supervise.WantUp) {
			t.Errorf("%s: said %q", name, said)
		}
	}
}

// A home of the predecessor: what it wanted is read once, a stop of the main
// profile is overruled, and another's is named with the command to undo it.
func TestExistingHomeIsTakenOverOnce(t *testing.T) {
	b, said := newBooter(t)
	b.main, b.run = MainProgram{GatewayRun: true}, rundir.Dir(b.path("run"))
	write(t, filepath.Join(b.home, "gateway_state.json"), `{"gateway_state":"stopped"}`, 0o644)
	for name, state := range map[string]string{"busy": "draining", "off": "stopped", "odd": "sideways"} {
		write(t, filepath.Join(b.home, "profiles", name, "gateway_state.json"), `{"gateway_state":"`+state+`"}`, 0o644)
	}
	if got := slotsOf(t, b, nil); got != "gateway-busy gateway-default guard --reconcile" { // the main program's comes last, being down in the old home
		t.Errorf("slots %s", got)
	}
	for _, line := range []string{
		"hermes: gateway-busy: found an existing home: gateway_state of gateway_state.json was draining\n",
		"hermes: gateway-off stays down: gateway_state of gateway_state.json was stopped; start it with: hermes -p off gateway start\n",
		"hermes: gateway-default was stopped when its home was taken over (gateway_state of gateway_state.json was stopped); the container's command `gateway run` starts it again\n",
		`its gateway_state is "sideways"; say it with gateway start or gateway stop` + "\n",
	} {
		if strings.Count(said.String(), line) != 1 {
			t.Errorf("did not say %q once:\n%s", line, said)
		}
	}
	write(t, filepath.Join(b.home, "profiles", "busy", "gateway_state.json"), `{"desired_state":"stopped"}`, 0o644)
	said.Reset()
	if got := slotsOf(t, b, nil); got != "gateway-default gateway-busy guard --reconcile" || strings.Contains(said.String(), "existing home") {
		t.Errorf("the second boot: slots %s; said %q", got, said)
	}
}

func TestUserServiceNames(t *testing.T) {
	b, said := newBooter(t)
	if names := b.userServiceNames(); names != nil {
		t.Errorf("without a directory: %q", names)
	}
	write(t, b.path(userServices, "web", "run"), "", 0o755)
	write(t, b.path(userServices, "empty", "finish"), "", 0o755)
	write(t, b.path(userServices, "file"), "", 0o755)
	if names := b.userServiceNames(); !slices.Equal(names, []string{"web"}) || said.Len() != 0 {
		t.Errorf("%q, said %q", names, said)
	}
	// A service called like one of ours kept the container from starting.
	taken := []string{"guard", "dashboard", "gateway-default", "gateway-later"}
	for _, name := range append(taken, ".s6-svscan", "gateways") {
		write(t, b.path(userServices, name, "run"), "", 0o755)
	}
	if names := b.userServiceNames(); !slices.Equal(names, []string{"gateways", "web"}) {
		t.Errorf("%q", names)
	}
	for _, name := range taken {
		if strings.Count(said.String(), "/etc/services.d/"+name+" is not started: ") != 1 {
			t.Errorf("%s is not named once:\n%s", name, said)
		}
	}
	if strings.Count(said.String(), "\n") != len(taken) {
		t.Errorf("said\n%s", said)
	}
}
