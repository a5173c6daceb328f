package config

import (
	"slices"
	"strings"
)

// Viewer is whose process an environment is made for.
type Viewer string

// The viewers.
const (
	// OwningGateway serves the profile that the container's environment speaks of.
	OwningGateway Viewer = "owning gateway"
	// OtherGateway serves another profile.
	OtherGateway Viewer = "other gateway"
	// DashboardSlot is the dashboard.
	DashboardSlot Viewer = "dashboard"
	// GuardSlot is the guard.
	GuardSlot Viewer = "guard"
)

// Withheld is a name that a slot does not get, and why.
type Withheld struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Why a name is withheld.
const (
	reasonDashboard = "it is the dashboard's login"
	reasonGuard     = "it is the guard's, which tells the operator"
	reasonProfile   = "it belongs to the profile of the main program"
	reasonLooks     = "it is called like a credential, which belongs to the profile of the main program"
	reasonEngine    = "it would set up the durable engine behind hermes' back"
)

// enginePrefix starts the variables of DBOS.
const enginePrefix = "DBOS__"

// CredentialEnds are what the names of credentials end in, also before _FILE.
func CredentialEnds() []string {
	return []string{"_TOKEN", "_KEY", "_KEYS", "_SECRET", "_PASSWORD", "_PASSWD", "_PASSPHRASE", "_CREDENTIALS"}
}

// Withhold splits environ (NAME=value lines): what viewer gets, and the names
// of what it does not. environ itself is unchanged.
func Withhold(environ []string, viewer Viewer) (kept []string, withheld []Withheld) {
	reasons := map[string]string{}
	for _, s := range Settings() {
		for _, name := range s.Names() {
			reasons[name] = s.reason(viewer)
		}
	}
	for _, line := range environ {
		name, _, _ := strings.Cut(line, "=")
		reason, known := reasons[name]
		if !known {
			reason = foreignReason(name, viewer)
		}
		if reason == "" {
			kept = append(kept, line)
		} else {
			withheld = append(withheld, Withheld{name, reason})
		}
	}
	slices.SortFunc(withheld, func(a, b Withheld) int { return strings.Compare(a.Name, b.Name) })
	return kept, withheld
}

// reason is why viewer does not get the variables of s, "" if it does.
func (s Setting) reason(viewer Viewer) string {
	switch {
	case s.PerProfile && viewer != OwningGateway:
		return reasonProfile
	case s.Viewer == DashboardSlot && viewer != DashboardSlot:
		return reasonDashboard
	case s.Viewer == GuardSlot && viewer != GuardSlot:
		return reasonGuard
	}
	return ""
}

// foreignReason is reason for a variable that is no setting of ours.
func foreignReason(name string, viewer Viewer) string {
	if strings.HasPrefix(name, enginePrefix) {
		return reasonEngine
	}
	looks := slices.ContainsFunc(CredentialEnds(), func(end string) bool {
		return strings.HasSuffix(strings.ToUpper(strings.TrimSuffix(name, fileSuffix)), end)
	})
	if looks && viewer != OwningGateway {
		return reasonLooks
	}
	return ""
}

// StripForeign is what Withhold leaves the gateway of another profile than the
// main program's: credentials and ports never reach it.
func StripForeign(environ []string) []string {
	kept, _ := Withhold(environ, OtherGateway)
	return kept
}

// Seen is a name that a gateway sees and where its value comes from. It never
// holds the value.
type Seen struct {
	Name   string `json:"name"`
	Source string `json:"source"` // container, slot, .env, config.yaml, _FILE, default
	Where  string `json:"where"`  // .env:3, config.yaml:2:13, the _FILE variable; else ""
}

// Sources of Seen.
const (
	seenContainer = "container"
	seenSlot      = "slot"
	seenDefault   = "default"
)

// Look says what the gateway of the profile in home sees, by name. environ is
// what its process gets; own are the names in it that its slot set. unread are
// names in .env that nothing reads.
func Look(home string, environ, own []string) (seen []Seen, unread []Withheld, err error) {
	values := map[string]string{}
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		values[name] = value
	}
	l, errs := load(Options{Home: home, Lookup: func(name string) (string, bool) { v, ok := values[name]; return v, ok }})
	if len(errs) > 0 {
		return nil, nil, errs[0]
	}
	rows := map[string]Seen{}
	for _, s := range Settings() {
		if from := l.config.Source(s.Name()); s.Key != "" || from.Kind != FromDefault { // what is read before any profile has no default here
			rows[s.Env] = l.seen(s, from)
		}
	}
	for name := range values {
		if _, ok := rows[name]; !ok && name != "" {
			rows[name] = Seen{Name: name, Source: seenContainer}
		}
	}
	for _, name := range own {
		rows[name] = Seen{Name: name, Source: seenSlot}
	}
	for _, row := range rows {
		seen = append(seen, row)
	}
	slices.SortFunc(seen, func(a, b Seen) int { return strings.Compare(a.Name, b.Name) })
	return seen, l.unread(), nil
}

func (l *loader) seen(s Setting, from Source) Seen {
	row := Seen{Name: s.Env, Where: from.Where}
	switch from.Kind {
	case FromEnvironment:
		row.Source, row.Where = seenContainer, ""
		if s.Secret && strings.HasSuffix(from.Where, fileSuffix) {
			row.Source, row.Where = fileSuffix, from.Where
		}
	case FromDotenv:
		row.Source = dotenvName
		if file := s.Env + fileSuffix; s.Secret && l.dotenv[file].text != "" {
			row.Source, row.Where = fileSuffix, file+" in "+from.Where
		}
	case FromFile:
		row.Source = yamlName
	case FromDefault, FromFlag:
		row.Source = seenDefault
	}
	return row
}

// unread are the names in .env that no setting has there.
func (l *loader) unread() []Withheld {
	read := map[string]bool{}
	for _, s := range Settings() {
		for _, name := range s.Names() {
			read[name] = s.Key != ""
		}
	}
	var names []Withheld
	for name, e := range l.dotenv {
		if fromFile, known := read[name]; !known {
			names = append(names, Withheld{name, e.where(dotenvName) + ": no setting is called that, so nothing reads it"})
		} else if !fromFile {
			names = append(names, Withheld{name, e.where(dotenvName) + ": it is read from the container's environment only"})
		}
	}
	slices.SortFunc(names, func(a, b Withheld) int { return strings.Compare(a.Name, b.Name) })
	return names
}
