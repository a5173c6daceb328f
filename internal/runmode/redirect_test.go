package runmode_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/runmode"
)

// redirecting are the facts of `docker run IMAGE gateway run`: every gate open.
func redirecting() runmode.Facts { return runmode.Facts{Tree: runmode.TreeOurs} }

func wantMode(t *testing.T, f runmode.Facts, mode runmode.Mode, reason runmode.Reason) runmode.Decision {
	t.Helper()
	d := runmode.Decide(f)
	if d.Mode != mode || d.Reason != reason {
		t.Fatalf("decided %s because of %s, want %s because of %s", d.Mode, d.Reason, mode, reason)
	}
	return d
}

func TestRedirectNoOpOnHost(t *testing.T) {
	wantMode(t, runmode.Facts{}, runmode.Foreground, runmode.ReasonNoTree)
}

func TestRedirectNoOpInForeignTree(t *testing.T) {
	f := redirecting()
	f.Tree = runmode.TreeForeign
	if d := wantMode(t, f, runmode.Foreground, runmode.ReasonForeign); d.Notice == "" {
		t.Error("a foreign s6 was refused without saying why")
	}
}

func TestRedirectNoOpInUnusableTree(t *testing.T) {
	f := redirecting()
	f.TreeRefusal = "permission denied"
	d := wantMode(t, f, runmode.Foreground, runmode.ReasonUnusable)
	if !strings.Contains(d.Notice, "permission denied") {
		t.Errorf("notice %q does not say why", d.Notice)
	}
}

func TestRedirectSentinelStopsRecursion(t *testing.T) {
	f := redirecting()
	f.Sentinel, f.InSlot = "1", true
	if d := wantMode(t, f, runmode.Foreground, runmode.ReasonSentinel); d.Notice != "" {
		t.Errorf("the supervised child says %q, want silence", d.Notice)
	}
	f.InSlot = false
	if d := wantMode(t, f, runmode.Foreground, runmode.ReasonSentinel); !strings.Contains(d.Notice, runmode.EnvSentinel) {
		t.Errorf("notice %q does not name the variable", d.Notice)
	}
}

func TestRedirectFlagOptsOut(t *testing.T) {
	f := redirecting()
	f.NoSuperviseFlag = true
	wantMode(t, f, runmode.Foreground, runmode.ReasonFlag)
}

func TestRedirectEnvTruthyOptsOut(t *testing.T) {
	for _, value := range []string{"1", "true", "TRUE", "True", "tRuE", "yes", "YES", "Yes"} {
		f := redirecting()
		f.NoSuperviseEnv = value
		t.Run(value, func(t *testing.T) { wantMode(t, f, runmode.Foreground, runmode.ReasonEnv) })
	}
}

func TestRedirectEnvFalsyAndTyposDoNotOptOut(t *testing.T) {
	values := []string{
		"", "0", "no", "No", "false", "off", "on", "y", "Y", "t", "T", "n", "2", "-1", "01", "1.0", "enabled",
		" 1", "1 ", " yes", "yes ", "true\n", "ture", "treu", "yess", "ye", "tru", "1true", "\"1\"", "＋1",
	}
	for _, value := range values {
		f := redirecting()
		f.NoSuperviseEnv = value
		t.Run(value, func(t *testing.T) { wantMode(t, f, runmode.Redirect, runmode.ReasonSupervise) })
	}
}

func TestRedirectFires(t *testing.T) {
	for _, tree := range []runmode.Tree{runmode.TreeOurs, runmode.TreeOverlay} {
		f := redirecting()
		f.Tree = tree
		d := wantMode(t, f, runmode.Redirect, runmode.ReasonSupervise)
		if d.Notice != runmode.Breadcrumb || strings.Contains(d.Notice, "\n") {
			t.Errorf("notice %q, want the breadcrumb on one line", d.Notice)
		}
	}
}

// recorder notes the order of what a redirect does.
type recorder struct {
	steps             []string
	startErr, downErr error
	stderr            bytes.Buffer
	argv              []string
	breadcrumbAtExec  string
	stderrAtStart     string
}

func (r *recorder) Start(context.Context) error {
	r.steps, r.stderrAtStart = append(r.steps, "start"), r.stderr.String()
	return r.startErr
}

func (r *recorder) Withdraw(context.Context) error {
	r.steps = append(r.steps, "withdraw")
	return r.downErr
}

func (r *recorder) exec(argv []string) error {
	r.steps, r.argv, r.breadcrumbAtExec = append(r.steps, "exec"), argv, r.stderr.String()
	return nil
}

func TestRedirectStartsThenSaysThenExecs(t *testing.T) {
	var r recorder
	fired, err := runmode.Become(t.Context(), &r, &r.stderr, runmode.Breadcrumb, r.exec)
	if err != nil || !fired {
		t.Fatalf("fired %v, error %v", fired, err)
	}
	if want := []string{"start", "exec"}; !slices.Equal(r.steps, want) {
		t.Errorf("steps %q, want %q", r.steps, want)
	}
	if r.stderrAtStart != "" {
		t.Errorf("said %q before the slot was started", r.stderrAtStart)
	}
	if r.breadcrumbAtExec != runmode.Breadcrumb+"\n" {
		t.Errorf("stderr at exec is %q, want the breadcrumb once", r.breadcrumbAtExec)
	}
	if want := []string{"sleep", "infinity"}; !slices.Equal(r.argv, want) {
		t.Errorf("exec %q, want %q", r.argv, want)
	}
}

func TestRedirectFailedStartWithdrawsBeforeForeground(t *testing.T) {
	r := recorder{startErr: errors.New("no room")}
	fired, err := runmode.Become(t.Context(), &r, &r.stderr, runmode.Breadcrumb, r.exec)
	if err != nil || fired {
		t.Fatalf("fired %v, error %v; want foreground without an error", fired, err)
	}
	if want := []string{"start", "withdraw"}; !slices.Equal(r.steps, want) {
		t.Errorf("steps %q, want %q", r.steps, want)
	}
	if out := r.stderr.String(); strings.Count(out, "\n") != 1 || !strings.Contains(out, "no room") {
		t.Errorf("stderr %q, want one line with the cause", out)
	}
}

func TestRedirectFailedWithdrawRunsNothing(t *testing.T) {
	r := recorder{startErr: errors.New("no room"), downErr: errors.New("deaf")}
	fired, err := runmode.Become(t.Context(), &r, &r.stderr, runmode.Breadcrumb, r.exec)
	if err == nil || fired {
		t.Fatalf("fired %v, error %v; want an error: the slot may come up beside a foreground gateway", fired, err)
	}
}
