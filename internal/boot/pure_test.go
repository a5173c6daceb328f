package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hermesgw/hermes/internal/exitcode"
)

func TestWhoAmI(t *testing.T) {
	full := t.TempDir() // a data directory that is not empty
	if err := os.WriteFile(filepath.Join(full, "hermes.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	none := filepath.Join(empty, "none")
	for name, c := range map[string]struct {
		env      environment
		uid, gid int
		owner    [2]int
		home     string
		want     string // uid:gid groups drop
		notice   bool
	}{
		"not root":                         {nil, 1000, 100, [2]int{5, 5}, full, "1000:100 [4 7] false", false},
		"not root, whatever is asked for":  {environment{"PUID=5"}, 1000, 100, [2]int{-1, -1}, none, "1000:100 [4 7] false", false},
		"root, a fresh volume":             {nil, 0, 0, [2]int{-1, -1}, none, "10000:10000 [4 7 0] true", false},
		"root, root's volume":              {nil, 0, 0, [2]int{0, 0}, full, "10000:10000 [4 7 0] true", false},
		"root, the image's volume":         {nil, 0, 0, [2]int{10000, 0}, full, "10000:10000 [4 7 0] true", false},
		"the volume's owner is adopted":    {nil, 0, 0, [2]int{1001, 1002}, full, "1001:1002 [4 7 0] true", true},
		"an owner of group 0":              {nil, 0, 0, [2]int{1001, 0}, full, "1001:10000 [4 7 0] true", true},
		"HERMES_UID":                       {environment{"HERMES_UID=99", "HERMES_GID=98"}, 0, 0, [2]int{0, 0}, full, "99:98 [4 7 0] true", false},
		"PUID":                             {environment{"PUID=99", "PGID=100"}, 0, 0, [2]int{-1, -1}, none, "99:100 [4 7 0] true", false},
		"HERMES_UID before PUID":           {environment{"PUID=7", "HERMES_UID=99"}, 0, 0, [2]int{99, 99}, full, "99:10000 [4 7 0] true", false},
		"an empty HERMES_UID is unset":     {environment{"HERMES_UID=", "PUID=99"}, 0, 0, [2]int{0, 0}, full, "99:10000 [4 7 0] true", false},
		"HERMES_GID alone":                 {environment{"HERMES_GID=50"}, 0, 0, [2]int{1001, 1002}, full, "1001:50 [4 7 0] true", true},
		"the owner is who was asked for":   {environment{"PUID=1001"}, 0, 0, [2]int{1001, 1002}, full, "1001:10000 [4 7 0] true", false},
		"another owner of an empty volume": {environment{"PUID=99"}, 0, 0, [2]int{10000, 0}, empty, "99:10000 [4 7 0] true", false},
		"the largest id":                   {environment{"PUID=4294967294"}, 0, 0, [2]int{0, 0}, full, "4294967294:10000 [4 7 0] true", false},
	} {
		got, err := whoAmI(c.env, c.uid, c.gid, []int{4, 7}, c.owner[0], c.owner[1], c.home)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := fmt.Sprintf("%d:%d %v %v", got.uid, got.gid, got.groups, got.drop); text != c.want || (got.notice != "") != c.notice {
			t.Errorf("%s: %s, notice %q; want %s", name, text, got.notice, c.want)
		}
	}
}

func TestWhoAmIRefuses(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "hermes.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, name := range []string{"HERMES_UID", "PUID", "HERMES_GID", "PGID"} {
		for _, value := range []string{"0", "root", "-1", "abc", "1.5", " 7", "0x10", "4294967295", "99999999999999999999"} {
			want[name+"="+value] = fmt.Sprintf("%s is %q: give a numeric id from 1 to 4294967294; services never run as root", name, value)
		}
	}
	want["PUID=99"] = full + " belongs to uid 1001, but PUID is 99: run the container with -e PUID=1001 -e PGID=1002, or give the directory to 99"
	for entry, text := range want {
		_, err := whoAmI(environment{entry}, 0, 0, nil, 1001, 1002, full)
		if exitcode.Of(err) != exitcode.Config || err == nil || err.Error() != text {
			t.Errorf("%s: code %d, %v; want 78, %s", entry, exitcode.Of(err), err, text)
		}
	}
}

func TestServiceUser(t *testing.T) {
	for entry, want := range map[string]string{"": "10000 10000 <nil>", "PUID=5": "5 10000 <nil>", "PGID=6": "10000 6 <nil>"} {
		uid, gid, err := ServiceUser([]string{entry})
		if got := fmt.Sprint(uid, gid, err); got != want {
			t.Errorf("%q: %s, want %s", entry, got, want)
		}
	}
	if _, _, err := ServiceUser([]string{"PUID=root"}); exitcode.Of(err) != exitcode.Config {
		t.Errorf("root as service user: %v", err)
	}
}

func TestEnvironmentGet(t *testing.T) {
	e := environment{"A=1", "EMPTY=", "A=2", "=C:=x", "NOEQUALS", "AA=3"}
	if v, ok := e.get("A"); v != "2" || !ok {
		t.Errorf("A is %q, %v: the last one counts", v, ok)
	}
	if v, ok := e.get("EMPTY"); v != "" || !ok {
		t.Errorf("EMPTY is %q, %v", v, ok)
	}
	if _, ok := e.get("NOEQUALS"); ok {
		t.Error("a line without = is a variable")
	}
	if e.or("EMPTY", "x") != "x" || e.or("NONE", "x") != "x" || e.or("AA", "x") != "3" {
		t.Error("or does not stand in for the empty and the unset")
	}
	if got := e.with("A", "9"); !slices.Equal(got, environment{"EMPTY=", "=C:=x", "NOEQUALS", "AA=3", "A=9"}) || e[0] != "A=1" {
		t.Errorf("with: %q, and now %q", got, e)
	}
}

// What is written is read again: values are raw, names that are no file names
// are left out. One trailing newline is what an editor or echo adds.
func TestSnapshot(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "snapshot")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		vars := rapid.MapOf(rapid.StringMatching(`[A-Za-z_][A-Za-z0-9_.]{0,20}`), rapid.StringMatching(`([^\x00]*[^\x00\n])?`)).Draw(rt, "variables")
		e := environment{"=hidden", "a/b=c", "..=d", ".=e", "nothing"}
		var want []string
		for name, value := range vars {
			e = append(e, name+"="+value)
			want = append(want, name+"="+value)
		}
		if err := e.snapshot(dir); err != nil {
			rt.Fatal(err)
		}
		got, err := LoadEnvironment(dir)
		slices.Sort(want)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			rt.Fatalf("read %q, %v; want %q", got, err, want)
		}
	})
}

func TestSnapshotIsPrivateAndFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	if err := (environment{"SECRET=s"}).snapshot(dir); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "SECRET")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "LINK")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "HOOK"), []byte("by echo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := LoadEnvironment(dir)
	if err != nil || !slices.Equal(got, []string{"HOOK=by echo", "SECRET=s"}) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := LoadEnvironment(filepath.Join(dir, "none")); err == nil {
		t.Error("a missing snapshot is an empty environment")
	}
}

func TestForUser(t *testing.T) {
	dropped, same := identity{uid: 5, drop: true}, identity{uid: 5}
	for name, c := range map[string]struct {
		id   identity
		env  environment
		want string
	}{
		"root's are replaced":           {dropped, environment{"HOME=/root", "USER=root", "PATH=/p"}, "/data hermes hermes /p"},
		"nothing set":                   {dropped, nil, "/data hermes hermes " + defaultPath},
		"a user's own are kept":         {same, environment{"HOME=/home/me", "USER=me", "LOGNAME=me", "PATH=/p"}, "/home/me me me /p"},
		"no passwd entry: HOME is /":    {same, environment{"HOME=/", "PATH=/p"}, "/data hermes hermes /p"},
		"an empty PATH is no PATH":      {same, environment{"HOME=/h", "USER=u", "LOGNAME=u", "PATH="}, "/h u u " + defaultPath},
		"HERMES_HOME is the one chosen": {same, environment{"HERMES_HOME=/x", "HERMES_RUN_DIR=/y", "HOME=/h", "USER=u", "LOGNAME=u", "PATH=/p"}, "/h u u /p"},
	} {
		e := c.env.forUser(c.id, "/data", "/run")
		got := fmt.Sprint(e.or("HOME", "-"), " ", e.or("USER", "-"), " ", e.or("LOGNAME", "-"), " ", e.or("PATH", "-"))
		if got != c.want || e.or("HERMES_HOME", "") != "/data" || e.or("HERMES_RUN_DIR", "") != "/run" {
			t.Errorf("%s: %s in %q, want %s", name, got, e, c.want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 9 * time.Second, "1": time.Second, "86400": 24 * time.Hour} {
		if got, err := (environment{"X=" + value}).seconds("X", 9*time.Second); err != nil || got != want {
			t.Errorf("%q is %s, %v; want %s", value, got, err, want)
		}
	}
	for _, value := range []string{"0", "-1", "86401", "1.5", "9s", "abc", " 1"} {
		_, err := (environment{"X=" + value}).seconds("X", 9*time.Second)
		if want := fmt.Sprintf("X is %q: give whole seconds from 1 to 86400, or unset it for 9", value); exitcode.Of(err) != exitcode.Config || err.Error() != want {
			t.Errorf("%q: %v, want %s", value, err, want)
		}
	}
	if _, err := Place([]string{"HERMES_BACKOFF_MAX=no"}, "/data", "/run", ""); exitcode.Of(err) != exitcode.Config {
		t.Errorf("HERMES_BACKOFF_MAX=no: %v", err)
	}
	if p, err := Place([]string{"HERMES_BACKOFF_MAX=5", "HERMES_STOP_TIMEOUT=7"}, "/data", "/run", "b"); err != nil || p.BackoffMax != 5*time.Second || p.StopTimeout != 7*time.Second {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestFinishHookLimit(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 5 * time.Second, "250": 250 * time.Millisecond, "0": 5 * time.Second, "x": 5 * time.Second, "-4": 5 * time.Second} {
		if got := finishHookLimit(environment{"S6_KILL_FINISH_MAXTIME=" + value}); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func TestResolve(t *testing.T) {
	bin := t.TempDir()
	for name, mode := range map[string]os.FileMode{"sh": 0o755, "data": 0o644, "gateway": 0o755} {
		if err := os.WriteFile(filepath.Join(bin, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(bin, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	isCommand := func(args []string) bool {
		return args[0] == "gateway" || args[0] == "chat" || strings.HasPrefix(args[0], "-")
	}
	for command, want := range map[string]string{
		"":                    "/hermes: hermes gateway run",
		"gateway run -v":      "/hermes: hermes gateway run -v", // also where a program has that name
		"-p work gateway run": "/hermes: hermes -p work gateway run",
		"chat hello":          "/hermes: hermes chat hello",
		"sh -c x":             bin + "/sh: sh -c x",
		"/bin/true now":       "/bin/true: /bin/true now",
		"./relative":          "./relative: ./relative",
		"data":                "/hermes: hermes data",       // not executable
		"folder":              "/hermes: hermes folder",     // not a program
		"gatewy run":          "/hermes: hermes gatewy run", // hermes says what is like it
	} {
		path, argv, err := Resolve(strings.Fields(command), "/hermes", "/nowhere:"+bin, isCommand)
		if got := path + ": " + strings.Join(argv, " "); err != nil || got != want {
			t.Errorf("%q runs %s, %v; want %s", command, got, err, want)
		}
	}
}

func TestExitCode(t *testing.T) {
	exited := func(code int) syscall.WaitStatus { return syscall.WaitStatus(code << 8) }
	for name, c := range map[string]struct {
		status syscall.WaitStatus
		byUs   bool
		want   int
	}{
		"its own":                       {exited(42), false, 42},
		"its own, after a stop request": {exited(7), true, 7},
		"0, after a stop request":       {exited(0), true, 0},
		"killed by the stop":            {syscall.WaitStatus(syscall.SIGTERM), true, 0},
		"killed at the budget":          {syscall.WaitStatus(syscall.SIGKILL), true, 0},
		"killed by somebody":            {syscall.WaitStatus(syscall.SIGKILL), false, 137},
		"crashed with a core":           {syscall.WaitStatus(syscall.SIGSEGV) | 0x80, false, 139},
	} {
		if got := exitCode(c.status, c.byUs); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestPartition(t *testing.T) {
	gateways, others := partition([]string{"dashboard", "gateway-default", "gateway-", "gateway-work", "s6rc-oneshot-runner", "gateway-UP"})
	if !slices.Equal(gateways, []string{"gateway-default", "gateway-work"}) || !slices.Equal(others, []string{"dashboard", "gateway-", "s6rc-oneshot-runner", "gateway-UP"}) {
		t.Errorf("gateways %q, others %q", gateways, others)
	}
}

func TestEndsContainer(t *testing.T) {
	for sig, want := range map[syscall.Signal]bool{
		syscall.SIGTERM: true, syscall.SIGINT: true, syscall.SIGQUIT: true, syscall.SIGPWR: true,
		syscall.SIGHUP: false, syscall.SIGUSR1: false, syscall.SIGUSR2: false, syscall.SIGWINCH: false,
	} {
		if endsContainer(sig) != want {
			t.Errorf("%v ends the container: %v", sig, !want)
		}
	}
}
