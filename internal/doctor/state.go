package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/profile"
)

const (
	// ahead is how far in the future a file may be: clocks of two machines
	// differ by less.
	ahead = 2 * time.Minute
	// jump is a step of the clock that nothing but a setting of it explains.
	jump = 2 * time.Second
	// firstYear is the earliest that this program can see.
	firstYear = 2025
)

// databases has each one checked, by its gateway if that lives.
func (e *examiner) databases(ctx context.Context) []Finding {
	const check = "database.integrity"
	var findings []Finding
	for _, p := range e.Profiles {
		restore := "restore a backup: " + command(p.Name, "gateway stop") + " && " + command(p.Name, "restore FILE")
		db := e.Probes.Database(ctx, p)
		switch {
		case db.Unsure != "":
			findings = append(findings, warning(check, "try again; "+command(p.Name, "gateway logs -n 50"), "not checked: %s", db.Unsure).of(p))
		case db.Skipped != "":
			findings = append(findings, good(check, "not checked: %s", db.Skipped).of(p))
		case db.Newer != "":
			findings = append(findings, problem(check, "run that version, or "+restore, "%s", db.Newer).of(p))
		case len(db.Problems) > 0:
			findings = append(findings, problem(check, restore, "the database of %s is damaged: %s", p.Home, listed(db.Problems)).of(p))
		default:
			findings = append(findings, good(check, "whole").of(p))
		}
		for _, f := range e.storage(p, db) {
			findings = append(findings, f.of(p))
		}
	}
	return findings
}

// storage says what waits for an operator in a database, and whether retention
// can keep its size. Only the gateway is asked; the file is left alone.
func (e *examiner) storage(p profile.Profile, db Database) []Finding {
	const letters, space = "database.letters", "database.size"
	list := command(p.Name, "deadletter list")
	s := db.Storage
	switch {
	case s == nil && errors.Is(db.NotAsked, ErrNoGateway):
		return []Finding{good(letters, "not asked: %v; %s looks by itself", db.NotAsked, list)}
	case s == nil && db.NotAsked != nil:
		return []Finding{warning(letters, "try again; "+command(p.Name, "gateway logs -n 50"), "the gateway could not be asked: %v", db.NotAsked)}
	case s == nil:
		return nil
	}
	findings := []Finding{good(letters, "there are no dead letters")}
	if s.Dead > 0 {
		findings[0] = warning(letters, list, "dead letters: %d, the oldest given up %s (not answered, or not delivered)", s.Dead, ago(e.Now().Sub(s.OldestDead)))
	}
	takes, limit := size(uint64(s.Bytes)), config.SizeText(s.MaxBytes)
	switch {
	case s.MaxBytes <= 0:
		return append(findings, good(space, "it takes %s", takes))
	case s.Bytes <= s.MaxBytes:
		return append(findings, good(space, "it takes %s; retention.max_bytes is %s", takes, limit))
	case s.Prunable:
		return append(findings, good(space, "it takes %s, more than retention.max_bytes (%s): the oldest conversations go within an hour", takes, limit))
	}
	return append(findings, warning(space, "see to the dead letters ("+list+"), or raise retention.max_bytes",
		"it takes %s, more than retention.max_bytes (%s), and nothing may be removed: what is left is open, or a dead letter", takes, limit))
}

// ago says how long ago something was, for people.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute ago"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

// clock compares it with what must lie in the past, and with itself.
func (e *examiner) clock() []Finding {
	const check = "clock.time"
	const fix = "set the clock of the host (chronyc makestep, or timedatectl set-ntp true)"
	now := e.Now()
	if by := stepped(now.Round(0).Sub(e.began.Round(0)), now.Sub(e.began)); by != 0 {
		return []Finding{warning(check, fix, "the clock was set by %s while doctor looked", by)}
	}
	if now.Year() < firstYear {
		return []Finding{problem(check, fix, "it is %s, says the clock", now.UTC().Format(time.RFC3339))}
	}
	if built := e.Probes.Binary; !built.IsZero() && now.Before(built.Add(-24*time.Hour)) {
		return []Finding{problem(check, fix, "it is %s, says the clock: earlier than this binary was made", now.UTC().Format(time.RFC3339))}
	}
	for _, p := range e.Profiles {
		for _, name := range []string{"hermes.db", "intent.json", "config.yaml", ".env", "gateway.lock"} {
			fi, err := os.Stat(filepath.Join(p.Home, name))
			if err == nil && fi.ModTime().After(now.Add(ahead)) {
				return []Finding{warning(check, fix, "%s is from the future (%s): the clock is behind, or was ahead",
					filepath.Join(p.Home, name), fi.ModTime().UTC().Format(time.RFC3339))}
			}
		}
	}
	return []Finding{good(check, "%s", now.UTC().Format(time.RFC3339))}
}

// stepped says by how much the wall clock was set in a time that the monotonic
// one measured; 0 for what is no step.
func stepped(wall, mono time.Duration) time.Duration {
	if by := wall - mono; by.Abs() > jump {
		return by.Round(time.Second)
	}
	return 0
}
