package mutation

// mutant is one guard taken away.
type mutant struct {
	guard string // what is lost, in words
	file  string // relative to the root
	old   string // occurs exactly once in file
	new   string
	pkg   string // of the test
	test  string // must pass on the tree and fail on the mutant
	fails string // what its output must then contain
}

const (
	runmode      = "internal/runmode/runmode.go"
	redirect     = "internal/runmode/redirect.go"
	pkgRunmode   = "./internal/runmode"
	pkgIRC       = "./internal/platform/irc"
	configCheck  = "internal/config/check.go"
	pkgConfig    = "./internal/config"
	operate      = "internal/dashboard/operate.go"
	pkgDashboard = "./internal/dashboard"
)

// mutants is the list of guards that hold the product up.
func mutants() []mutant {
	return []mutant{
		{
			guard: "gate 1: the supervised child never redirects", file: runmode,
			old: `if f.Sentinel != "" {`, new: `if false && f.Sentinel != "" {`,
			pkg: pkgRunmode, test: "TestRedirectSentinelStopsRecursion",
			fails: "decided redirect because of supervised, want foreground because of sentinel",
		},
		{
			guard: "gate 2: --no-supervise", file: runmode,
			old: `if f.NoSuperviseFlag {`, new: `if false && f.NoSuperviseFlag {`,
			pkg: pkgRunmode, test: "TestRedirectFlagOptsOut",
			fails: "decided redirect because of supervised, want foreground because of flag",
		},
		{
			guard: "gate 2: HERMES_GATEWAY_NO_SUPERVISE", file: runmode,
			old: `if config.Truthy(f.NoSuperviseEnv) {`, new: `if false && config.Truthy(f.NoSuperviseEnv) {`,
			pkg: pkgRunmode, test: "TestRedirectEnvTruthyOptsOut",
			fails: "decided redirect because of supervised, want foreground because of env",
		},
		{
			guard: "gate 2: truthiness is strict", file: configCheck,
			old: `strings.ToLower(value)`, new: `strings.TrimSpace(strings.ToLower(value))`,
			pkg: pkgRunmode, test: "TestRedirectEnvFalsyAndTyposDoNotOptOut",
			fails: "decided foreground because of env, want redirect because of supervised",
		},
		{
			guard: "gate 3: nothing on a host", file: runmode,
			old: `if f.Tree == TreeNone {`, new: `if false && f.Tree == TreeNone {`,
			pkg: pkgRunmode, test: "TestRedirectNoOpOnHost",
			fails: "decided redirect because of supervised, want foreground because of no-tree",
		},
		{
			guard: "gate 3: a foreign s6 is left alone", file: runmode,
			old: `if f.Tree == TreeForeign {`, new: `if false && f.Tree == TreeForeign {`,
			pkg: pkgRunmode, test: "TestRedirectNoOpInForeignTree",
			fails: "decided redirect because of supervised, want foreground because of foreign",
		},
		{
			guard: "gate 3: a tree that cannot be used", file: runmode,
			old: `if f.TreeRefusal != "" {`, new: `if false && f.TreeRefusal != "" {`,
			pkg: pkgRunmode, test: "TestRedirectNoOpInUnusableTree",
			fails: "decided redirect because of supervised, want foreground because of unusable",
		},
		{
			guard: "the breadcrumb", file: redirect,
			old: `fmt.Fprintln(stderr, notice)`, new: `_ = notice`,
			pkg: pkgRunmode, test: "TestRedirectStartsThenSaysThenExecs",
			fails: "want the breadcrumb once",
		},
		{
			guard: "a slot that failed to start is withdrawn first", file: redirect,
			old: `if down := slot.Withdraw(ctx); down != nil {`, new: `if down := error(nil); down != nil {`,
			pkg: pkgRunmode, test: "TestRedirectFailedStartWithdrawsBeforeForeground",
			fails: `want ["start" "withdraw"]`,
		},
		{
			guard: "crash policy: wrong configuration parks", file: "internal/supervise/policy.go",
			old: `if d.Signal == 0 && d.Code == exitcode.Config {`, new: `if false && d.Code == exitcode.Config {`,
			pkg: "./internal/supervise", test: "TestDecide",
			fails: "configuration: restart with 1 deaths, want park with 0",
		},
		{
			guard: "crash policy: a loop is slowed down", file: "internal/supervise/policy.go",
			old: `if delay == 0 {`, new: `if delay >= 0 {`,
			pkg: "./internal/supervise", test: "TestStormIsBounded",
			fails: "starts in the 60 s after start",
		},
		{
			guard: "crash policy: ten starts a minute, however short the pauses", file: "internal/supervise/policy.go",
			old: `, m.wait(d.At))`, new: `, 0*m.wait(d.At))`,
			pkg: "./internal/supervise", test: "TestStormIsBounded",
			fails: "starts in the 60 s after start",
		},
		{
			guard: "crash policy: a loop ends parked", file: "internal/supervise/policy.go",
			old: `if m.Deaths >= ParkAfter {`, new: `if false && m.Deaths >= ParkAfter {`,
			pkg: "./internal/supervise", test: "TestTwentyDeathsParkWithATrial",
			fails: "death 20: backoff",
		},
		{
			guard: "one command at a time per slot", file: "internal/supervise/s6slots/serial.go",
			old: `locked, err := lock.TryLockContext(limited, lockPoll)`, new: `locked, err := true, error(nil)`,
			pkg: "./internal/supervise/s6slots", test: "TestBusySlotIsNamed",
			fails: "<nil>, want cannot stop gateway-default: restart by op7",
		},
		{
			guard: "one holder per profile", file: "internal/lease/lease.go",
			old: `unix.LOCK_EX|unix.LOCK_NB`, new: `1|unix.LOCK_NB`, // LOCK_SH of flock(2)
			pkg: "./internal/lease", test: "TestSecondIsRefusedAndToldWhoHolds",
			fails: "has no working locks",
		},
		{
			guard: "locks that say yes to everybody", file: "internal/lease/lease.go",
			old: `case err == nil:
		return ErrNoLocks`, new: `case err == nil:
		return nil`,
			pkg: "./internal/lease", test: "TestFilesystemsWithoutLocksAreRefused",
			fails: "want ErrNoLocks and 78",
		},
		{
			guard: "the control socket knows its user", file: "internal/control/server.go",
			old: `return peer == self || peer == 0`, new: `return true`,
			pkg: "./internal/control", test: "TestPeerOfAnotherUserIsHungUpOn",
			fails: "uid 12345: allowed true, want false",
		},
		{
			guard: "a foreign Host is refused", file: "internal/access/access.go",
			old: `if !LoopbackHost(r.Host) {`, new: `if false && !LoopbackHost(r.Host) {`,
			pkg: "./internal/access", test: "TestPolicy",
			fails: `want "foreign_host"`,
		},
		{
			guard: "the key is compared", file: "internal/access/access.go",
			old: `if !key.Equal(strings.TrimSpace(token)) {`, new: `if false && !key.Equal(strings.TrimSpace(token)) {`,
			pkg: "./internal/access", test: "TestPolicy",
			fails: `want "invalid_api_key"`,
		},
		{
			guard: "a standstill of the guard itself voids what it saw", file: "internal/guard/guard.go",
			old: `if gap <= gapLimit {`, new: `if true || gap <= gapLimit {`,
			pkg: "./internal/guard", test: "TestStandstillNeverCounts",
			fails: "ended after",
		},
		{
			guard: "who had or awaited the machine is not deaf", file: "internal/guard/watch.go",
			old: `return after.Blocked || wanted >= took/4`, new: `return after.Blocked && wanted < 0`,
			pkg: "./internal/guard", test: "TestTheSlowAreLeftAlone",
			fails: "ended after",
		},
		{
			guard: "a volume that is not there removes no slot", file: "internal/guard/reconcile.go",
			old: `return errors.Is(err, os.ErrNotExist) && err2 == nil && around.IsDir()`, new: `_, _ = around, err2; return errors.Is(err, os.ErrNotExist)`,
			pkg: "./internal/guard", test: "TestProfilesGetAndLoseTheirSlots",
			fails: "remove kept",
		},
		{
			guard: "what a slot starts carries its tag", file: "internal/supervise/slot/entry.go",
			old: `func setTag(spec supervise.Spec) { _ =`, new: `func setTag(spec supervise.Spec) { return; _ =`,
			pkg: "./internal/supervise/s6slots", test: "TestNothingOutlivesItsSlot",
			fails: "processes outlive their service",
		},
		{
			guard: "settings that are wrong together are not written", file: "internal/config/edit.go",
			old: `if c.Config, err = Load(c.over(o)); err != nil {`, new: `if c.Config, err = Load(c.over(o)); false && err != nil {`,
			pkg: pkgConfig, test: "TestWhatIsWrongIsNotWritten",
			fails: "the user of a password was removed",
		},
		{
			guard: "a change of config.yaml is one setting", file: "internal/config/yamledit.go",
			old: `if !maps.Equal(old, changed) {`, new: `if false && !maps.Equal(old, changed) {`,
			pkg: pkgConfig, test: "TestWhatIsChangedByHand",
			fails: "the blank line is part of it",
		},
		{
			guard: "what somebody else wrote meanwhile stays", file: "internal/config/edit.go",
			old: `if !bytes.Equal(now, f.before) {`, new: `if false && !bytes.Equal(now, f.before) {`,
			pkg: pkgConfig, test: "TestWriteRefusesAFileThatChanged",
			fails: `"log: {level: warn}`,
		},
		{
			guard: "no typo takes TLS away", file: "internal/config/settings.go",
			old: `return s.Kind == Bool && s.Default == yes`, new: `return false && s.Default == yes`,
			pkg: pkgConfig, test: "TestStrictBooleans",
			fails: "an empty IRC_TLS means no",
		},
		{
			guard: "what a profile is told reaches no other", file: "internal/config/withhold.go",
			old: `case s.PerProfile && viewer != OwningGateway:`, new: `case s.PerProfile && s.Secret && viewer != OwningGateway:`,
			pkg: pkgConfig, test: "TestSettingsOfAProfileReachNoOther",
			fails: "another profile's gateway gets [IRC_SERVER=x]",
		},
		{
			guard: "a note without a heartbeat is not believed", file: "internal/control/note.go",
			old: `age >= 0 && age <= believed`, new: `age >= 0`,
			pkg: "./internal/control", test: "TestNoteWithoutAHeartbeatIsDoubted",
			fails: "13 seconds old: the note is believed",
		},
		{
			guard: "what is remembered of a file counts only for the same file", file: "internal/smallfile/cache.go",
			old: `r == nil || r.id != id`, new: `r == nil`,
			pkg: "./internal/smallfile", test: "TestCacheIsNeverBehind",
			fails: `"first" and "first"`,
		},
		{
			guard: "a young change is not remembered", file: "internal/smallfile/cache.go",
			old: `age < settled`, new: `age < 0`,
			pkg: "./internal/smallfile", test: "TestCacheDoesNotRememberYoungChanges",
			fails: "kept: ",
		},
		{
			guard: "a note of a stopped or another process is not believed", file: "internal/control/note.go",
			old: `p.Start != n.Start || !p.Runs()`, new: `false`,
			pkg: "./internal/control", test: "TestNoteOfAnotherProcessIsDoubted",
			fails: "the note is believed",
		},
		{
			guard: "a gateway in a deadlock has no heartbeat", file: "internal/app/gateway.go",
			old: `		p.Status()
		p.control.Beat()`, new: `		p.control.Beat()`,
			pkg: "./internal/app", test: "TestNoteOfADeafGatewayIsDoubted",
			fails: "in vain until nobody believes it any more",
		},
		{
			guard: "the same message is accepted once", file: "internal/store/turns.go",
			old: `	if err == nil {
		return known, false, nil
	}`, new: `	if false && err == nil {
		return known, false, nil
	}`,
			pkg: "./internal/turn", test: "TestTheSameMessageIsAcceptedOnce",
			fails: "while it is open",
		},
		{
			guard: "a turn that ends processes is set aside", file: "internal/turn/turn.go",
			old: `m.State == Running && m.Attempts-m.Released >= MaxAttempts`, new: `false`,
			pkg: "./internal/turn", test: "TestPoisonIsSetAside",
			fails: "the peer was told",
		},
		{
			guard: "retention leaves dead letters alone", file: "internal/store/retention.go",
			old: "(state IN ('queued', 'running') OR ` + deadMessage + `))", new: "state IN ('queued', 'running'))",
			pkg: "./internal/store", test: "TestDeadLettersOutliveRetention",
			fails: "removed 2 conversations",
		},
		{
			guard: "what a stop in the chat dropped is not sent", file: "internal/store/outbox.go",
			old: "UPDATE outbox SET state = 'dead', settled = 'dropped', error = 'stopped in the chat', finished_at = ?`+where", new: "UPDATE outbox SET not_before = ?`+where",
			pkg: "./internal/gateway", test: "TestStopEndsWhatIsBeingSaid",
			fails: "a restart would send",
		},
		{
			guard: "a part that may have arrived is labelled", file: "internal/outbox/outbox.go",
			old: `repeat := p.Unsure && !b.limits.Dedupes`, new: `repeat := false && !b.limits.Dedupes`,
			pkg: "./internal/outbox", test: "TestUnsureIsLabelledOrHarmless",
			fails: "labelled",
		},
		{
			guard: "a part that was being sent at a crash is in doubt", file: "internal/outbox/outbox.go",
			old: `if first && p.State == Sending {`, new: `if false && p.State == Sending {`,
			pkg: "./internal/outbox", test: "TestCrashInTheUnknownWindow",
			fails: "a: x",
		},
		{
			guard: "an answer is given up as one", file: "internal/outbox/outbox.go",
			old: `if p.State == Dead && !ofText(err) {`, new: `if false && p.State == Dead && !ofText(err) {`,
			pkg: "./internal/outbox", test: "TestAnAnswerIsGivenUpAsOne",
			fails: "calls, told of",
		},
		{
			guard: "a restore takes no log that another left", file: "internal/store/backup.go",
			old: `discard(part) // of a restore`, new: `// of a restore`,
			pkg: "./internal/store", test: "TestRestoreTakesNoForeignLog",
			fails: "holds",
		},
		{
			guard: "a preview takes no place of an answer", file: "internal/outbox/outbox.go",
			old: `g.limit.Tokens() >= 1+float64(g.limit.Burst())/2`, new: `g.limit.Tokens() >= 1`,
			pkg: "./internal/outbox", test: "TestPreviewsTakeNoPlaceOfAnAnswer",
			fails: "sent and",
		},
		{
			guard: "a failed edit never becomes a new message", file: "internal/outbox/outbox.go",
			old: `		p.Unsure = true
	case platform.Retry:`, new: `		p.Unsure, p.Edits = true, ""
	case platform.Retry:`,
			pkg: "./internal/outbox", test: "TestFailedEditNeverBecomesANewMessage",
			fails: "sent [\"a: ",
		},
		{
			guard: "a preview of a killed process is known", file: "internal/turn/preview.go",
			old: `return e.o.Journal.Previewed(certain, m.Seq, posted)`, new: `_ = certain
				return nil`,
			pkg: "./internal/gateway", test: "TestPreviewGoesOnAcrossARestart",
			fails: "waited",
		},
		{
			guard: "nobody is let in without configuration", file: "internal/access/senders.go",
			old: `	default:
		return Stranger
	}
}

// Open`, new: `	default:
		return User
	}
}

// Open`,
			pkg: "./internal/inbound", test: "TestWithoutConfigurationNobodyIsLetIn",
			fails: "a turn began",
		},
		{
			guard: "IRC: an account counts only where the server vouches for it", file: "internal/platform/irc/handle.go",
			old: `account != "" && s.caps["account-tag"]`, new: `account != ""`,
			pkg: pkgIRC, test: "TestTagsNotAgreedOnAreNotBelieved",
			fails: "ID:account:Ann",
		},
		{
			guard: "IRC: no text ends a line and begins a command", file: "internal/platform/irc/text.go",
			old: `strings.TrimRightFunc(strip(line), unicode.IsSpace)`, new: `strings.TrimRightFunc(line, unicode.IsSpace)`,
			pkg: pkgIRC, test: "TestSplit",
			fails: "ACTION x",
		},
		{
			guard: "IRC: what was written and not confirmed is in doubt", file: "internal/platform/irc/send.go",
			old: `if len(d.sent) == 0 {`, new: `if true {`,
			pkg: pkgIRC, test: "TestFenceConfirms",
			fails: "cannot send to IRC",
		},
		{
			guard: "the dashboard does nothing without a login", file: operate,
			old: `case s == nil: // there is no login`, new: `case false:`,
			pkg: pkgDashboard, test: "TestWithoutALoginItOnlyLooks",
			fails: "EOF", // the second guard behind it: no session, no answer
		},
		{
			guard: "a command of the dashboard comes from its own page", file: operate,
			old: `case !genuine(w, r, s):`, new: `case false && !genuine(w, r, s):`,
			pkg: pkgDashboard, test: "TestCommandsThatAreRefused",
			fails: "the operator was asked to stop default",
		},
		{
			guard: "the dashboard commands gateways alone", file: operate,
			old: `service.Kind != supervise.KindGateway || service.Profile == nil`, new: `service.Profile == nil`,
			pkg: pkgDashboard, test: "TestCommandsThatAreRefused",
			fails: "the operator was asked to stop default",
		},
	}
}
