// Package boot is the container's own machinery: /init, which prepares the run
// directory, drops root, writes the slots and becomes s6-svscan; the wrapper
// that runs the container's command and carries its exit code; and the one
// conductor of the stop. What a slot looks like on disk is not its business
// (s6slots), nor whether `gateway run` redirects (runmode).
//
//	err := boot.Init(ctx, boot.Options{Args: os.Args[1:], Environ: os.Environ(), …})
package boot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

// MainProgram is what the command line makes of the container's command.
type MainProgram struct {
	GatewayRun  bool   // `[-p NAME] gateway run`
	Profile     string // of GatewayRun
	NoSupervise bool   // --no-supervise was given
	Forward     []string
	IsCommand   bool // its first word is a hermes command or flag
}

// Options is all that Init needs from outside.
type Options struct {
	Args    []string // the container's command; none means `gateway run`
	Environ []string
	Root    string // of the filesystem, "/" but in tests
	Binary  string // absolute path of hermes
	Stderr  io.Writer
	// Parse tells what hermes would do with args.
	Parse func(args []string) MainProgram
	// WriteSlot fills dir with the slot of spec.
	WriteSlot func(dir string, spec supervise.Spec, down bool) error
}

// DefaultHome is the data directory in the image.
const DefaultHome = "/opt/data"

// booter carries one boot from step to step.
type booter struct {
	Options
	env  environment
	home string
	id   identity
	run  rundir.Dir
	main MainProgram
	mark rundir.Mark
}

// Init boots the container and becomes s6-svscan; it returns only with an
// error. Each step stands on its own and touches nothing outside Root, the
// data directory and the run directory.
func Init(ctx context.Context, o Options) error {
	b := &booter{Options: o, env: o.Environ}
	b.home = b.env.or("HERMES_HOME", DefaultHome)
	if len(b.Args) == 0 {
		b.Args = []string{"gateway", "run"}
	}
	b.main = b.Parse(b.Args)
	if _, err := b.stopTimeout(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		b.identify, b.prepare, b.dropRoot, b.prepareAsUser, b.probe, b.recordEnvironment, b.runInitHooks, b.writeSlots, b.becomeScanner,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *booter) path(elem ...string) string {
	return filepath.Join(append([]string{"/", b.Root}, elem...)...)
}

func (b *booter) say(format string, args ...any) { fmt.Fprintf(b.Stderr, format+"\n", args...) }

func (b *booter) identify(context.Context) error {
	groups, err := os.Getgroups()
	if err != nil {
		return fmt.Errorf("cannot read the groups of this process: %w", err)
	}
	if err := checkLinks(b.home); err != nil && os.Getuid() == 0 {
		return err
	}
	ownerUID, ownerGID := homeOwner(b.home)
	b.id, err = whoAmI(b.env, os.Getuid(), os.Getgid(), groups, ownerUID, ownerGID, b.home)
	if err != nil {
		return err
	}
	if b.id.drop && !proc.CanBecome() {
		b.id = identity{uid: 0, gid: os.Getgid(), groups: groups}
		b.say("hermes: root without CAP_SETUID and CAP_SETGID stays root: the services run as uid 0")
	}
	if b.id.notice != "" {
		b.say("%s", b.id.notice)
	}
	return nil
}

func (b *booter) prepare(context.Context) error {
	if err := b.prepareHome(); err != nil {
		return err
	}
	run, err := b.chooseRunDir()
	if err != nil && !b.id.drop {
		return err
	}
	b.run = run
	return nil
}

// prepareAsUser looks for a run directory again where root found none: without
// CAP_CHOWN or CAP_DAC_OVERRIDE it can do less than the user it becomes.
func (b *booter) prepareAsUser(context.Context) (err error) {
	if b.run != "" {
		return nil
	}
	b.run, err = b.chooseRunDir()
	return err
}

func (b *booter) dropRoot(context.Context) error {
	if !b.id.drop {
		return nil
	}
	b.id.giveStreams()
	return proc.Become(b.id.uid, b.id.gid, b.id.groups)
}

// probe fails only where a gateway would: `docker run IMAGE bash` must work
// beside a broken volume, to mend it.
func (b *booter) probe(context.Context) error {
	err := b.probeHome()
	if err != nil && b.main.GatewayRun {
		return exitcode.With(exitcode.Config, err)
	}
	if err != nil {
		b.say("hermes: %v", err)
	}
	return nil
}

func (b *booter) recordEnvironment(context.Context) error {
	b.env = b.env.forUser(b.id, b.home, string(b.run))
	if err := b.env.snapshot(b.run.Environment()); err != nil {
		return err
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id)              // never fails (crypto/rand)
	self, _ := proc.Read(os.Getpid()) // without /proc the mark says 0: unknown
	b.mark = rundir.Mark{
		ScannerPID: self.PID, ScannerStart: self.Start, // s6-svscan, which this process becomes
		Schema: rundir.MarkSchema, BootID: hex.EncodeToString(id), UID: b.id.uid, GID: b.id.gid,
		Groups: b.id.groups, Home: b.home, Profile: b.mainProfile(), Started: time.Now().UTC(),
	}
	return b.run.WriteMark(b.mark)
}

// DefaultStopTimeout is a second less than Docker's own.
const DefaultStopTimeout = 9 * time.Second

// maxSeconds bounds what a duration variable may say: a day.
const maxSeconds = 86400

// seconds reads a whole number of seconds from a variable.
func (e environment) seconds(name string, fallback time.Duration) (time.Duration, error) {
	text, ok := e.get(name)
	if !ok || text == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxSeconds {
		return 0, exitcode.With(exitcode.Config, fmt.Errorf("%s is %q: give whole seconds from 1 to %d, or unset it for %d",
			name, text, maxSeconds, int(fallback.Seconds())))
	}
	return time.Duration(n) * time.Second, nil
}

func (b *booter) stopTimeout() (time.Duration, error) {
	return b.env.seconds("HERMES_STOP_TIMEOUT", DefaultStopTimeout)
}

// Place is what the slots of a tree share, from its environment.
func Place(environ []string, home string, run rundir.Dir, bootID string) (supervise.Place, error) {
	env := environment(environ)
	stop, err := env.seconds("HERMES_STOP_TIMEOUT", DefaultStopTimeout)
	if err != nil {
		return supervise.Place{}, err
	}
	backoff, err := env.seconds("HERMES_BACKOFF_MAX", supervise.DefaultBackoffMax)
	if err != nil {
		return supervise.Place{}, err
	}
	return supervise.Place{Home: home, RunDir: string(run), BootID: bootID, BackoffMax: backoff, StopTimeout: stop}, nil
}

// writeSlots fills the scan directory before anything looks at it: the user's
// own services, the dashboard if it is wanted, the gateways that intent and
// the container's command ask for, and the guard; a gateway that the command runs
// in the foreground has its slot too, down.
func (b *booter) writeSlots(context.Context) error {
	place, err := Place(b.env, b.home, b.run, b.mark.BootID)
	if err != nil {
		return err
	}
	supervised := b.supervised()
	up := b.wantedProfiles(supervised)
	if supervised {
		if err := b.recordIntent(); err != nil {
			return err
		}
	}
	var errs []error
	for _, name := range b.userServiceNames() {
		errs = append(errs, b.writeSlot(place.Service(name, b.path(userServices, name)), false))
	}
	if b.dashboardWanted() {
		errs = append(errs, b.writeSlot(place.Dashboard(), false))
	}
	for _, name := range b.registeredProfiles(up) {
		main := name == b.mainProfile()
		var flags []string
		if main {
			flags = b.main.Forward
		}
		errs = append(errs, b.writeSlot(place.Gateway(name, flags, main), !slices.Contains(up, name)))
	}
	if args, wanted := b.guardArgs(supervised); wanted {
		errs = append(errs, b.writeSlot(place.Guard(args...), false))
	}
	return errors.Join(errs...)
}

// guardArgs are the flags of the guard, and whether there is one: wherever
// gateways are started by more than an operator's hand.
func (b *booter) guardArgs(supervised bool) (args []string, wanted bool) {
	reconcile := b.reconcile(supervised)
	if reconcile {
		args = append(args, "--reconcile")
	}
	if b.main.GatewayRun && !supervised { // its slot must not come up beside it
		args = append(args, "--leave", b.mainProfile())
	}
	return args, supervised || reconcile
}

// reconcile says whether this container starts slots from stored intent.
func (b *booter) reconcile(supervised bool) bool {
	if v, ok := b.env.get("HERMES_RECONCILE"); ok && v != "" {
		return config.Truthy(v)
	}
	return supervised
}

// dashboardWanted asks the environment, .env and config.yaml. Files that are
// broken are the gateway's to complain about; then the environment alone counts.
func (b *booter) dashboardWanted() bool {
	cfg, err := config.Load(config.Options{Home: b.home, Lookup: b.env.get, Part: true})
	if err != nil {
		return config.Truthy(b.env.or("HERMES_DASHBOARD", ""))
	}
	return cfg.Dashboard().Enabled
}

func (b *booter) writeSlot(spec supervise.Spec, down bool) error {
	dir := b.run.Scan().Dir(spec.Name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make slot %q: %w", spec.Name, err)
	}
	b.logBoot(spec.Name, down)
	return b.WriteSlot(dir, spec, down)
}

// supervised says whether the container's command will redirect.
func (b *booter) supervised() bool {
	sentinel, _ := b.env.get(runmode.EnvSentinel)
	optOut, _ := b.env.get(runmode.EnvNoSupervise)
	d := runmode.Decide(runmode.Facts{
		NoSuperviseFlag: b.main.NoSupervise, NoSuperviseEnv: optOut, Sentinel: sentinel, Tree: runmode.TreeOurs,
	})
	return b.main.GatewayRun && d.Mode == runmode.Redirect
}

// mainProfile is the profile that the container's environment speaks of.
func (b *booter) mainProfile() string {
	if b.main.GatewayRun && b.main.Profile != "" {
		return b.main.Profile
	}
	return profile.Default
}

// wantedProfiles are the profiles whose gateways start with the container.
func (b *booter) wantedProfiles(supervised bool) []string {
	var up []string
	foreground := b.main.GatewayRun && !supervised
	if b.reconcile(supervised) {
		up = b.intended()
	}
	if foreground { // its slot must not come up beside it, whatever was stored
		up = slices.DeleteFunc(up, func(name string) bool { return name == b.mainProfile() })
	}
	if supervised && !slices.Contains(up, b.mainProfile()) {
		if _, err := profile.Find(b.home, b.mainProfile()); err == nil {
			up = append(up, b.mainProfile())
		}
	}
	return up
}

// intended are the profiles whose stored intent is up. An intent that cannot
// be read starts nothing and is named.
func (b *booter) intended() []string {
	profiles, err := profile.List(b.home)
	if err != nil {
		b.say("hermes: %v", err)
	}
	for _, line := range profile.NotHomes(b.home) {
		b.say("hermes: %s", line)
	}
	var up []string
	for _, p := range profiles {
		b.inherit(p)
		i, ok, err := intent.Read(p.Home) // inherit has said why not
		if err == nil && ok && i.Want == supervise.WantUp {
			up = append(up, p.Name)
		}
	}
	return up
}

// inherit takes over, once, what an existing home wanted of a profile. The main
// program's own wish comes after it and counts more.
func (b *booter) inherit(p profile.Profile) {
	i, ok, err := intent.Inherit(p.Home, time.Now())
	name := supervise.GatewayName(p.Name)
	switch {
	case err != nil:
		b.say("hermes: %s: %v", name, err)
	case ok && i.Want == supervise.WantDown && p.Name != b.mainProfile():
		b.say("hermes: %s stays down: %s; start it with: hermes -p %s gateway start", name, i.Why, p.Name)
	case ok && i.Want == supervise.WantUp:
		b.say("hermes: %s: found an existing home: %s", name, i.Why)
	}
}

// registeredProfiles are the profiles that have a slot from the start: those
// that are wanted and, down if need be, the one that the container's command
// runs. `docker run IMAGE true` pays for none; `gateway start` registers any.
func (b *booter) registeredProfiles(up []string) []string {
	names := slices.Clone(up)
	if !b.main.GatewayRun || slices.Contains(names, b.mainProfile()) {
		return names
	}
	if _, err := profile.Find(b.home, b.mainProfile()); err == nil {
		names = append(names, b.mainProfile())
	}
	return names
}

// recordIntent notes that the container's command wants its profile up, and
// says so when that overrules a stop.
func (b *booter) recordIntent() error {
	p, err := profile.Find(b.home, b.mainProfile())
	if err != nil {
		return nil // the command itself will say that there is no such profile
	}
	old, known, err := intent.Read(p.Home)
	if err != nil {
		return err
	}
	if known && old.Want == supervise.WantDown {
		b.say("hermes: %s %s; the container's command `gateway run` starts it again", supervise.GatewayName(p.Name), stoppedBy(old))
	}
	return intent.Write(p.Home, intent.Intent{
		Want: supervise.WantUp, By: intent.ByMainProgram, At: time.Now().UTC(), Why: "the container's command is gateway run",
	})
}

// stoppedBy says in words who wanted a gateway down.
func stoppedBy(i intent.Intent) string {
	if i.By == intent.ByMigration {
		return "was stopped when its home was taken over (" + i.Why + ")"
	}
	return fmt.Sprintf("was stopped by %s at %s", i.By, i.At.UTC().Format(time.RFC3339))
}

// becomeScanner starts the wrapper of the main program, which waits for
// s6-svscan's word that it is ready, and becomes s6-svscan.
func (b *booter) becomeScanner(context.Context) error {
	if err := b.writeHooks(); err != nil {
		return err
	}
	stop, err := b.makeStopFIFO()
	if err != nil {
		return err
	}
	scanner, err := lookPath("s6-svscan", b.env.or("PATH", defaultPath))
	if err != nil {
		return exitcode.With(exitcode.NotFound, err)
	}
	ready, notify, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot make a pipe: %w", err)
	}
	b.adoptOrphans()
	if err := b.startMain(ready, stop); err != nil {
		return err
	}
	if err := detachStdin(); err != nil {
		return err
	}
	fd := int(notify.Fd())
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil { // survives the exec
		return fmt.Errorf("cannot pass the readiness pipe on: %w", err)
	}
	argv := []string{"s6-svscan", "-d", strconv.Itoa(fd), "--", string(b.run.Scan())}
	if err := syscall.Exec(scanner, argv, b.env); err != nil {
		return exitcode.With(exitcode.CannotExec, fmt.Errorf("cannot run %s: %w", scanner, err))
	}
	return nil
}

// adoptOrphans makes s6-svscan, which this process becomes, reap what the
// container's processes leave also where it is not PID 1 (the flag survives
// exec), and says who reaps the rest.
func (b *booter) adoptOrphans() {
	if os.Getpid() == 1 {
		return
	}
	name := "another program"
	if init, err := proc.Read(1); err == nil {
		name = init.Comm
	}
	if err := proc.BecomeSubreaper(); err != nil {
		b.say("hermes: not PID 1: orphans are reaped by PID 1 (%s) alone: %v", name, err)
		return
	}
	b.say("hermes: not PID 1: s6-svscan reaps what its services leave, PID 1 (%s) all else", name)
}

// makeStopFIFO returns the FIFO of the signal hooks, open: the wrapper inherits
// it, so that a stop finds a reader from the first moment on.
func (b *booter) makeStopFIFO() (*os.File, error) {
	path := b.run.StopFIFO()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("cannot make %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	return f, nil
}

// startMain starts the wrapper with the container's own stdin and terminal; its
// descriptors are those that Inherited names.
func (b *booter) startMain(ready, stop *os.File) error {
	argv := slices.Concat([]string{"hermes"}, MainCommand(), b.Args)
	p, err := os.StartProcess(b.Binary, argv, &os.ProcAttr{
		Env: b.env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, ready, stop},
	})
	if err != nil {
		return fmt.Errorf("cannot start the wrapper of the main program: %w", err)
	}
	return p.Release() // s6-svscan, which this process becomes, reaps it
}

// detachStdin keeps the services off the terminal, which is the main program's.
func detachStdin() error {
	null, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("cannot open /dev/null: %w", err)
	}
	if err := unix.Dup3(null, 0, 0); err != nil {
		return fmt.Errorf("cannot replace stdin: %w", err)
	}
	return unix.Close(null)
}

// writeHooks makes s6-svscan call hermes for every signal and at its end.
func (b *booter) writeHooks() error {
	dir := filepath.Join(string(b.run.Scan()), ".s6-svscan")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make %s: %w", dir, err)
	}
	for _, name := range hookNames() {
		if err := os.Symlink(b.Binary, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("cannot write hook %q: %w", name, err)
		}
	}
	return nil
}

// lookPath finds an executable on the PATH of an environment that is not ours.
func lookPath(name, path string) (string, error) {
	if filepath.Base(name) != name {
		return name, nil
	}
	for _, dir := range filepath.SplitList(path) {
		candidate := filepath.Join(dir, name)
		if fi, err := os.Stat(candidate); err == nil && fi.Mode().IsRegular() && unix.Access(candidate, unix.X_OK) == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("cannot find %q on PATH (%s): %w", name, path, exec.ErrNotFound)
}
