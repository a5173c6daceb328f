package runmode_test

import (
	"fmt"
	"testing"

	"github.com/hermesgw/hermes/internal/runmode"
)

// TestDecideEveryCombination walks the whole table of facts and compares with
// the contract, written down a second time in other words.
func TestDecideEveryCombination(t *testing.T) {
	sentinels := []string{"", "1", "0", "no"}
	envs := []string{"", "0", "1", "typo"}
	trees := []runmode.Tree{runmode.TreeNone, runmode.TreeForeign, runmode.TreeOurs, runmode.TreeOverlay}
	cases := 0
	for _, sentinel := range sentinels {
		for _, inSlot := range []bool{false, true} {
			for _, flag := range []bool{false, true} {
				for _, env := range envs {
					for _, tree := range trees {
						for _, refusal := range []string{"", "denied"} {
							cases++
							f := runmode.Facts{flag, env, sentinel, inSlot, tree, refusal}
							t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) { check(t, f) })
						}
					}
				}
			}
		}
	}
	if want := 4 * 2 * 2 * 4 * 4 * 2; cases != want {
		t.Fatalf("%d combinations, want %d", cases, want)
	}
}

func check(t *testing.T, f runmode.Facts) {
	d := runmode.Decide(f)
	open := f.Sentinel == "" && !f.NoSuperviseFlag && f.NoSuperviseEnv != "1" &&
		(f.Tree == runmode.TreeOurs || f.Tree == runmode.TreeOverlay) && f.TreeRefusal == ""
	if got := d.Mode == runmode.Redirect; got != open {
		t.Errorf("redirect = %v, want %v (reason %s)", got, open, d.Reason)
	}
	optedOut := f.NoSuperviseFlag || f.NoSuperviseEnv == "1"
	silent := d.Mode == runmode.Foreground && (f.Sentinel != "" && f.InSlot || f.Sentinel == "" && (optedOut || f.Tree == runmode.TreeNone))
	if (d.Notice == "") != silent {
		t.Errorf("notice %q, want silence: %v", d.Notice, silent)
	}
}
