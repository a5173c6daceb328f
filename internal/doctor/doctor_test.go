package doctor_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/doctor"
	"github.com/hermesgw/hermes/internal/filesystem"
	"github.com/hermesgw/hermes/internal/lease"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/supervise"
)

// healthy is a patient that nothing is wrong with; each test breaks one thing.
func healthy(t *testing.T) *doctor.Options {
	t.Helper()
	home := t.TempDir()
	p := profile.Profile{Name: profile.Default, Home: home}
	return &doctor.Options{
		Home: home, Profiles: []profile.Profile{p},
		Found:    rundir.Found{Dir: "/run", Tree: runmode.TreeNone},
		Environ:  []string{"PATH=/bin", "HERMES_LOG_LEVEL=info"},
		Internal: []string{"HERMES_SLOT"},
		Probes: doctor.Probes{
			Filesystem: func(string) (filesystem.Info, error) {
				return filesystem.Info{Name: "ext4", Free: 10 << 30, Inodes: 1 << 20}, nil
			},
			Locks:    func(context.Context, string) error { return nil },
			Database: func(context.Context, profile.Profile) doctor.Database { return doctor.Database{} },
			Listens:  func(context.Context, string) bool { return false },
		},
	}
}

// addProfile makes a second profile with a .env of its own.
func addProfile(t *testing.T, o *doctor.Options, name, dotenv string) profile.Profile {
	t.Helper()
	p, err := profile.Create(o.Home, name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(p.Home, ".env"), dotenv, 0o600)
	o.Profiles = append(o.Profiles, p)
	return p
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func service(name string, state supervise.State, change func(*supervise.Service)) supervise.Report {
	s := supervise.Service{Name: name, Kind: supervise.KindService, State: state, Want: supervise.WantUp}
	if p, ok := supervise.ProfileOf(name); ok {
		s.Kind, s.Profile = supervise.KindGateway, &p
	}
	if change != nil {
		change(&s)
	}
	return supervise.Report{Services: []supervise.Service{s}}
}

func TestNothingIsWrongWithTheHealthy(t *testing.T) {
	for _, f := range doctor.Examine(t.Context(), *healthy(t)) {
		if f.Severity != doctor.OK || f.Fix != "" || f.What == "" || f.Group() == "" || f.Name() == "" {
			t.Errorf("a healthy patient: %+v", f)
		}
	}
}

// Each row breaks one thing; what is said of it, and what mends it, must show.
func TestEachIllnessIsFound(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil     func(*testing.T, *doctor.Options)
		check     string
		severity  doctor.Severity
		what, fix string
	}{
		"a tree that may not be used": {
			func(_ *testing.T, o *doctor.Options) {
				o.Found = rundir.Found{Dir: "/run", Tree: runmode.TreeOurs, Refusal: "permission denied", Mark: &rundir.Mark{UID: 7}}
			},
			"run.directory", doctor.Problem, "permission denied", "docker exec -u 7",
		},
		"parked by configuration": {
			func(_ *testing.T, o *doctor.Options) {
				o.Report = service("gateway-default", supervise.Parked, func(s *supervise.Service) { s.Reason = "config.yaml:2:9: no port" })
			},
			"services.state", doctor.Problem, "gateway-default is parked: config.yaml:2:9: no port", "hermes gateway start",
		},
		"parked by deaths": {
			func(_ *testing.T, o *doctor.Options) {
				o.Report = service("gateway-work", supervise.Parked, func(s *supervise.Service) { u := time.Now().Add(time.Hour); s.Until = &u })
			},
			"services.state", doctor.Problem, "tried again in", "hermes -p work gateway start",
		},
		"in a loop":   {reports("gateway-default", supervise.Backoff), "services.state", doctor.Problem, "died too soon", "gateway logs"},
		"degraded":    {reports("gateway-default", supervise.Degraded), "services.state", doctor.Warning, "is degraded", "gateway logs"},
		"never ready": {startedLongAgo, "services.state", doctor.Problem, "has been starting for", "gateway logs"},
		"standby": {
			func(_ *testing.T, o *doctor.Options) {
				o.Report = service("gateway-default", supervise.Standby, func(s *supervise.Service) {
					s.Holder = &supervise.Holder{Host: "web-1", Since: time.Unix(0, 0)}
				})
			},
			"services.state", doctor.Warning, "held by web-1 since 1970", "stop one of the two",
		},
		"no data directory":      {homeIsAFile, "volume.there", doctor.Problem, "is not a directory", "HERMES_HOME"},
		"a network filesystem":   {lies(filesystem.Info{Name: "nfs", Shared: true, Free: 1 << 40, Countless: true}), "volume.filesystem", doctor.Warning, "nfs: other machines", "named volume"},
		"the container's layer":  {inTheLayer, "volume.filesystem", doctor.Warning, "lost with the container", "docker run -v"},
		"little room":            {lies(filesystem.Info{Name: "xfs", Free: 50 << 20, Countless: true}), "volume.free", doctor.Warning, "52.4 MB are left", "make room"},
		"no room":                {lies(filesystem.Info{Name: "xfs", Free: 1 << 20, Countless: true}), "volume.free", doctor.Problem, "1.0 MB are left", "make room"},
		"no inodes":              {lies(filesystem.Info{Name: "xfs", Free: 10 << 30, Inodes: 3}), "volume.free", doctor.Problem, "3 files are left", "remove files"},
		"no locks":               {locksFail(lease.ErrNoLocks), "volume.locks", doctor.Problem, "no working locks", "named volume"},
		"locks cannot be tried":  {locksFail(os.ErrPermission), "volume.locks", doctor.Warning, "could not be tried", ""},
		"a link as a home":       {linkedProfile, "settings.profiles", doctor.Warning, "/profiles/moved is no profile: it is a link", "put a directory"},
		"a leftover":             {leftover(".intent.json.123"), "volume.leftovers", doctor.Warning, ".intent.json.123", "hermes doctor --fix"},
		"half a backup":          {leftover(".hermes-backup-123"), "volume.leftovers", doctor.Warning, ".hermes-backup-123", "hermes doctor --fix"},
		"half a restore":         {leftover("hermes.db.restoring-wal"), "volume.leftovers", doctor.Warning, "hermes.db.restoring-wal", "hermes doctor --fix"},
		"a wrong value":          {file("config.yaml", "log:\n  format: loud\n", 0o600), "settings.values", doctor.Problem, "config.yaml:2:11: log.format", "hermes gateway start"},
		"an unknown key":         {file("config.yaml", "modle: x\n", 0o600), "settings.keys", doctor.Warning, "config.yaml:1:1", "config check"},
		"a broken intent":        {file("intent.json", "{", 0o600), "settings.intent", doctor.Problem, "intent.json", "rm "},
		"a misspelt variable":    {environ("HERMES_DASHBORD=1"), "settings.variables", doctor.Warning, "HERMES_DASHBORD", "HERMES_DASHBOARD?"},
		"an unknown variable":    {environ("HERMES_QUUX_FROBNICATION=1"), "settings.variables", doctor.Warning, "HERMES_QUUX", "unset it"},
		"a secret file missing":  {environ("API_SERVER_KEY_FILE=/none/key"), "settings.values", doctor.Problem, "/none/key", "gateway start"},
		"a bad base URL":         {environ("HERMES_MODEL_BASE_URL=localhost:11434"), "settings.values", doctor.Problem, "HERMES_MODEL_BASE_URL", "gateway start"},
		"an open .env":           {file(".env", "A=b\n", 0o644), "credentials.file", doctor.Warning, "mode 0644", "chmod 600"},
		"a quoted key":           {environ(`API_SERVER_KEY="0123456789abcdef"`), "credentials.api-key", doctor.Warning, "stands in quotes", "set API_SERVER_KEY"},
		"a short key":            {environ("API_SERVER_KEY=short"), "credentials.api-key", doctor.Warning, "only 5 characters", "urandom"},
		"a short key, open":      {environ("API_SERVER_KEY=short", "API_SERVER_HOST=0.0.0.0"), "credentials.api-key", doctor.Problem, "can be guessed", "urandom"},
		"no model key":           {environ("HERMES_MODEL_PROVIDER=openai"), "credentials.model-key", doctor.Problem, "there is no key", "HERMES_MODEL_API_KEY"},
		"a model key with blank": {environ("HERMES_MODEL_PROVIDER=openai", "HERMES_MODEL_API_KEY=sk-1 "), "credentials.model-key", doctor.Warning, "blank", "HERMES_MODEL_API_KEY"},
		"half a login":           {environ("HERMES_DASHBOARD=1", "HERMES_DASHBOARD_USERNAME=a"), "credentials.dashboard", doctor.Problem, "incomplete", "HERMES_DASHBOARD_PASSWORD"},
		"an open dashboard":      {environ("HERMES_DASHBOARD=1", "HERMES_DASHBOARD_HOST=0.0.0.0"), "credentials.dashboard", doctor.Problem, "without a login", "HERMES_DASHBOARD_PASSWORD"},
		"a taken port":           {taken, "network.port", doctor.Problem, "another process listens", "API_SERVER_PORT"},
		"one port for two":       {twoOnOnePort, "network.port", doctor.Problem, "both want port 8642", "another API_SERVER_PORT"},
		"loopback in a container": {
			func(_ *testing.T, o *doctor.Options) { o.Found.Tree = runmode.TreeOurs },
			"network.reach", doctor.Warning, "published ports do not reach it", "-e API_SERVER_HOST=0.0.0.0",
		},
		"another profile on loopback in a container": {
			func(t *testing.T, o *doctor.Options) {
				o.Found.Tree = runmode.TreeOurs
				addProfile(t, o, "work", "API_SERVER_PORT=8643\n")
			},
			"network.reach", doctor.Warning, "gateway-work listens on 127.0.0.1", "hermes -p work config set api_server.host 0.0.0.0, and docker run -p 127.0.0.1:8643:8643",
		},
		"a damaged database": {database(doctor.Database{Problems: []string{"page 7 is never used"}}), "database.integrity", doctor.Problem, "page 7", "backup"},
		"a dead letter": {
			database(doctor.Database{Storage: &doctor.Storage{Dead: 1, OldestDead: time.Now().Add(-150 * time.Minute)}}),
			"database.letters", doctor.Warning, "dead letters: 1, the oldest given up 2 h ago", "hermes deadletter list",
		},
		"dead letters of another profile": {
			func(t *testing.T, o *doctor.Options) {
				database(doctor.Database{Storage: &doctor.Storage{Dead: 12, OldestDead: time.Now().Add(-73 * time.Hour)}})(t, o)
				addProfile(t, o, "work", "")
			},
			"database.letters", doctor.Warning, "dead letters: 12, the oldest given up 3 days ago", "hermes -p work deadletter list",
		},
		"a gateway that does not tell": {
			database(doctor.Database{NotAsked: errors.New("the gateway did not answer")}),
			"database.letters", doctor.Warning, "could not be asked: the gateway did not answer", "gateway logs",
		},
		"a database that retention cannot keep small": {
			database(doctor.Database{Storage: &doctor.Storage{Bytes: 20 << 20, MaxBytes: 16 << 20}}),
			"database.size", doctor.Warning, "takes 21.0 MB, more than retention.max_bytes (16MiB), and nothing may be removed", "raise retention.max_bytes",
		},
		"a newer database":   {database(doctor.Database{Newer: "a newer hermes has written it"}), "database.integrity", doctor.Problem, "a newer hermes has written it", "run that version"},
		"an unsure database": {database(doctor.Database{Unsure: "it took too long"}), "database.integrity", doctor.Warning, "too long", "try again"},
		"a clock of 1970":    {at(time.Unix(100, 0)), "clock.time", doctor.Problem, "1970-", "set the clock"},
		"a clock before the build": {
			func(_ *testing.T, o *doctor.Options) { o.Probes.Binary = time.Now().Add(1000 * time.Hour) },
			"clock.time", doctor.Problem, "earlier than this binary", "set the clock",
		},
		"a file of the future": {fromTheFuture, "clock.time", doctor.Warning, "from the future", "set the clock"},
	} {
		t.Run(name, func(t *testing.T) {
			o := healthy(t)
			tc.spoil(t, o)
			findings := doctor.Examine(t.Context(), *o)
			for _, f := range findings {
				if f.Check == tc.check && f.Severity == tc.severity && strings.Contains(f.What, tc.what) && strings.Contains(f.Fix, tc.fix) {
					if doctor.Healthy(findings) != (tc.severity != doctor.Problem) {
						t.Errorf("with a %s it is healthy: %v", tc.severity, doctor.Healthy(findings))
					}
					return
				}
			}
			t.Errorf("no %s of %s says %q with the fix %q among:\n%s", tc.severity, tc.check, tc.what, tc.fix, list(findings))
		})
	}
}

// Of another profile the ills are told, each with the command for that profile,
// and nothing of what is well.
func TestBriefTellsTheIllsOfEveryProfile(t *testing.T) {
	o := healthy(t)
	o.Found.Tree = runmode.TreeOurs
	o.Report = service("gateway-parked", supervise.Parked, nil)
	o.Probes.Database = func(_ context.Context, p profile.Profile) doctor.Database {
		if p.Name == "damaged" {
			return doctor.Database{Problems: []string{"page 7 is never used"}}
		}
		return doctor.Database{}
	}
	for _, name := range []string{"well", "parked", "damaged"} {
		addProfile(t, o, name, "")
	}
	write(t, filepath.Join(addProfile(t, o, "intent", "").Home, "intent.json"), "{", 0o600)
	write(t, filepath.Join(addProfile(t, o, "value", "").Home, "config.yaml"), "log:\n  format: loud\n", 0o600)
	write(t, filepath.Join(addProfile(t, o, "open", "").Home, ".env"), "A=b\n", 0o644)
	want := map[string]string{
		"parked": "hermes -p parked gateway start", "damaged": "hermes -p damaged restore", "intent": "hermes -p intent gateway start",
		"value": "hermes -p value gateway start", "open": "chmod 600 ",
	}
	own := 0
	for _, f := range doctor.Brief(doctor.Examine(t.Context(), *o), o.Profiles[0]) {
		switch {
		case f.Profile == nil:
		case *f.Profile == profile.Default:
			own++
		case want[*f.Profile] == "" || !strings.Contains(f.Fix, want[*f.Profile]):
			t.Errorf("%s: %+v", *f.Profile, f)
		default:
			delete(want, *f.Profile)
		}
	}
	if len(want) > 0 || own < 5 {
		t.Errorf("nothing of %v; %d findings of the default profile", want, own)
	}
}

func list(findings []doctor.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		b.WriteString(string(f.Severity) + " " + f.Check + ": " + f.What + " -> " + f.Fix + "\n")
	}
	return b.String()
}

func reports(name string, state supervise.State) func(*testing.T, *doctor.Options) {
	return func(_ *testing.T, o *doctor.Options) { o.Report = service(name, state, nil) }
}

func startedLongAgo(_ *testing.T, o *doctor.Options) {
	o.Report = service("gateway-default", supervise.Starting, func(s *supervise.Service) { t := time.Now().Add(-time.Hour); s.Since = &t })
}

func homeIsAFile(t *testing.T, o *doctor.Options) {
	o.Home = filepath.Join(o.Home, "file")
	write(t, o.Home, "", 0o600)
}

func lies(info filesystem.Info) func(*testing.T, *doctor.Options) {
	return func(_ *testing.T, o *doctor.Options) {
		o.Probes.Filesystem = func(string) (filesystem.Info, error) { return info, nil }
	}
}

func inTheLayer(t *testing.T, o *doctor.Options) {
	o.Found.Tree = runmode.TreeOurs
	lies(filesystem.Info{Name: "overlay", Volatile: true, Free: 1 << 40, Countless: true})(t, o)
}

func locksFail(err error) func(*testing.T, *doctor.Options) {
	return func(_ *testing.T, o *doctor.Options) {
		o.Probes.Locks = func(context.Context, string) error { return err }
	}
}

func file(name, text string, mode os.FileMode) func(*testing.T, *doctor.Options) {
	return func(t *testing.T, o *doctor.Options) { write(t, filepath.Join(o.Home, name), text, mode) }
}

func linkedProfile(t *testing.T, o *doctor.Options) {
	profiles := filepath.Join(o.Home, "profiles")
	if err := errors.Join(os.MkdirAll(profiles, 0o700), os.Symlink(t.TempDir(), filepath.Join(profiles, "moved"))); err != nil {
		t.Fatal(err)
	}
}

func leftover(name string) func(*testing.T, *doctor.Options) {
	return func(t *testing.T, o *doctor.Options) {
		path := filepath.Join(o.Home, name)
		write(t, path, "{", 0o600)
		old := time.Now().Add(-24 * time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
}

func environ(entries ...string) func(*testing.T, *doctor.Options) {
	return func(_ *testing.T, o *doctor.Options) { o.Environ = append(o.Environ, entries...) }
}

func taken(_ *testing.T, o *doctor.Options) {
	o.Probes.Listens = func(_ context.Context, address string) bool { return address == "127.0.0.1:8642" }
}

func twoOnOnePort(t *testing.T, o *doctor.Options) {
	other := addProfile(t, o, "work", "API_SERVER_PORT=8642\n")
	for _, home := range []string{o.Home, other.Home} {
		write(t, filepath.Join(home, "intent.json"), `{"want":"up","by":"test","at":"2026-01-02T15:04:05Z","why":""}`, 0o644)
	}
}

func database(db doctor.Database) func(*testing.T, *doctor.Options) {
	return func(_ *testing.T, o *doctor.Options) {
		o.Probes.Database = func(context.Context, profile.Profile) doctor.Database { return db }
	}
}

func at(now time.Time) func(*testing.T, *doctor.Options) {
	return func(_ *testing.T, o *doctor.Options) { o.Now = func() time.Time { return now } }
}

func fromTheFuture(t *testing.T, o *doctor.Options) {
	path := filepath.Join(o.Home, "config.yaml")
	write(t, path, "", 0o600)
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
}

// A port that our own gateway serves is not taken by another.
func TestOwnGatewayMayHaveItsPort(t *testing.T) {
	o := healthy(t)
	taken(t, o)
	o.Gateways = map[string]control.Status{profile.Default: {Address: "127.0.0.1:8642"}}
	for _, f := range doctor.Examine(t.Context(), *o) {
		if f.Check == "network.port" && (f.Severity != doctor.OK || !strings.Contains(f.What, "serves on")) {
			t.Errorf("%+v", f)
		}
	}
}

// Another profile must not be judged by credentials that it never sees.
func TestCredentialsInTheEnvironmentAreOneProfiles(t *testing.T) {
	o := healthy(t)
	o.Found.Tree = runmode.TreeOurs
	addProfile(t, o, "work", "API_SERVER_PORT=8643\n")
	environ("API_SERVER_KEY=short")(t, o)
	for _, f := range doctor.Examine(t.Context(), *o) {
		if f.Check == "credentials.api-key" && *f.Profile != profile.Default {
			t.Errorf("%+v", f)
		}
	}
}

// No secret is ever repeated.
func TestFindingsHoldNoSecret(t *testing.T) {
	o := healthy(t)
	environ(`API_SERVER_KEY="sesame"`, "HERMES_MODEL_PROVIDER=openai", "HERMES_MODEL_API_KEY=sesame sesame", "HERMES_DASHBOARD=1", "HERMES_DASHBOARD_PASSWORD=sesame", "HERMES_SESAM=sesame")(t, o)
	if text := list(doctor.Examine(t.Context(), *o)); strings.Contains(text, "sesame") {
		t.Errorf("a secret is in:\n%s", text)
	}
}

func TestMendDoesWhatIsSafe(t *testing.T) {
	o := healthy(t)
	leftover(".intent.json.123")(t, o)
	file(".env", "A=b\n", 0o644)(t, o)
	write(t, filepath.Join(o.Home, ".intent.json.456"), "fresh: somebody may be writing it", 0o600)
	file("intent.json", "{", 0o600)(t, o)
	fixed := 0
	for _, f := range doctor.Mend(doctor.Examine(t.Context(), *o)) {
		if f.Fixed {
			fixed++
		}
	}
	if fixed != 2 {
		t.Errorf("mended %d things, want 2", fixed)
	}
	if fi, err := os.Stat(filepath.Join(o.Home, ".env")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf(".env: %v %v", fi.Mode(), err)
	}
	if left, err := filepath.Glob(filepath.Join(o.Home, ".intent.json.*")); err != nil || len(left) != 1 {
		t.Errorf("left: %q %v", left, err)
	}
	if data, err := os.ReadFile(filepath.Join(o.Home, "intent.json")); err != nil || string(data) != "{" {
		t.Errorf("an intent is an operator's: %q %v", data, err)
	}
	for _, f := range doctor.Examine(t.Context(), *o) {
		if f.Fixable {
			t.Errorf("still there: %+v", f)
		}
	}
}

// A directory that cannot be written: as root there is none, so a full or
// read-only one is shown in a container (e2e).
func TestReadOnlyDirectoryIsAProblem(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Log("root writes everywhere; the test of the image covers it")
		return
	}
	o := healthy(t)
	if err := os.Chmod(o.Home, 0o500); err != nil {
		t.Fatal(err)
	}
	if text := list(doctor.Examine(t.Context(), *o)); !strings.Contains(text, "problem volume.writable") {
		t.Error(text)
	}
}

// A profile whose port nobody set gets one of its own; it clashes with nobody.
func TestPortsThatAreAssignedDoNotClash(t *testing.T) {
	o := healthy(t)
	addProfile(t, o, "work", "")
	for _, f := range doctor.Examine(t.Context(), *o) {
		if f.Check == "network.port" && f.Severity != doctor.OK {
			t.Errorf("%+v", f)
		}
	}
}

// The container's environment is not that of every profile; a port that is not
// assigned yet cannot be published.
func TestHowToPublishAnotherProfile(t *testing.T) {
	o := healthy(t)
	o.Found.Tree = runmode.TreeOurs
	addProfile(t, o, "work", "API_SERVER_PORT=8650\n")
	addProfile(t, o, "fresh", "")
	fixes := map[string]string{}
	for _, f := range doctor.Examine(t.Context(), *o) {
		if f.Check == "network.reach" {
			fixes[*f.Profile] = f.Fix
		}
	}
	want := "to publish it: hermes -p work config set api_server.host 0.0.0.0, and docker run -p 127.0.0.1:8650:8650"
	if len(fixes) != 2 || fixes["work"] != want {
		t.Errorf("%q, want %q", fixes, want)
	}
}

// To a stranger everything would look ill: one finding says who to be.
func TestStrangerIsToldWhoToBe(t *testing.T) {
	o := healthy(t)
	o.Found = rundir.Found{Dir: "/run", Tree: runmode.TreeOurs, Refusal: "permission denied"}
	if findings := doctor.Examine(t.Context(), *o); len(findings) != 1 {
		t.Errorf("it says:\n%s", list(findings))
	}
}
