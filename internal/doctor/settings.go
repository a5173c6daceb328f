package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/typo"
)

const (
	// shortKey is how many characters a key needs to be out of reach of guessing.
	shortKey = 16
	// secretMode is what a file with secrets may allow at most.
	secretMode = 0o600
)

// config loads the settings of a profile as its gateway would see them.
func (e *examiner) config(p profile.Profile) (*config.Config, []error) {
	environ := e.Environ
	if e.inContainer() && !e.Owns(p) {
		environ = config.StripForeign(environ)
	}
	c, errs := config.Check(config.Options{Home: p.Home, Lookup: lookup(environ)})
	e.configs[p.Name] = c
	return c, errs
}

// lookup is os.LookupEnv of an environment.
func lookup(environ []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, entry := range slices.Backward(environ) {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}

// settings reads the files of each profile, and the names in the environment.
func (e *examiner) settings() []Finding {
	var findings []Finding
	for _, p := range e.Everyone {
		c, errs := e.config(p)
		if !e.looksAt(p) {
			continue
		}
		for _, err := range errs {
			findings = append(findings, problem("settings.values", "correct it, then: "+command(p.Name, "gateway start"), "%v", err).of(p))
		}
		for _, w := range c.Warnings {
			findings = append(findings, warning("settings.keys", "correct it, then: "+command(p.Name, "config check"), "%s", w).of(p))
		}
		if len(errs) == 0 {
			findings = append(findings, good("settings.values", "every value in %s is one that is understood", p.Home).of(p))
		}
		findings = append(findings, wish(p))
	}
	for _, line := range profile.NotHomes(e.Home) {
		findings = append(findings, warning("settings.profiles", "put a directory with the name of the profile in its place", "%s", line))
	}
	return append(findings, e.variables()...)
}

func (e *examiner) looksAt(p profile.Profile) bool { return slices.Contains(e.Profiles, p) }

// wish is what an operator wants of a profile.
func wish(p profile.Profile) Finding {
	const check = "settings.intent"
	i, known, err := intent.Read(p.Home)
	switch {
	case err != nil:
		path := filepath.Join(p.Home, intent.FileName)
		return problem(check, "rm "+path+" && "+command(p.Name, "gateway start"), "%v", err).of(p)
	case !known:
		return good(check, "nobody has started or stopped the gateway yet").of(p)
	}
	return good(check, "wanted %s", i).of(p)
}

// variables looks for names that nobody reads: a typo takes a setting away in
// silence.
func (e *examiner) variables() []Finding {
	known := slices.Clone(e.Internal)
	for _, s := range config.Settings() {
		known = append(known, s.Names()...)
	}
	var findings []Finding
	for _, entry := range e.Environ {
		name, value, _ := strings.Cut(entry, "=")
		if value == "" { // container tools pass empty variables for what nobody gave
			continue
		}
		if !strings.HasPrefix(name, "HERMES_") && !strings.HasPrefix(name, "API_SERVER_") && !strings.HasPrefix(name, "IRC_") || slices.Contains(known, name) {
			continue
		}
		fix := "unset it"
		if near := typo.Nearest(name, known); near != "" {
			fix = "did you mean " + near + "?"
		}
		findings = append(findings, warning("settings.variables", fix, "nobody reads the environment variable %s", name))
	}
	return findings
}

// credentials looks at the shape of secrets, never at what they are.
func (e *examiner) credentials() []Finding {
	var findings []Finding
	for _, p := range e.Profiles {
		c := e.configs[p.Name]
		mine := append(secretsFile(p), apiKey(c, p)...)
		mine = append(mine, modelKey(c)...)
		if p.Name == profile.Default {
			mine = append(mine, login(c)...)
		}
		if len(mine) == 0 {
			mine = []Finding{good("credentials.shape", "nothing is wrong with what is there")}
		}
		for _, f := range mine {
			findings = append(findings, f.of(p))
		}
	}
	return findings
}

func secretsFile(p profile.Profile) []Finding {
	path := filepath.Join(p.Home, ".env")
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []Finding{problem("credentials.file", "chown it to the user of the services", "%s cannot be read: %v", path, cause(err))}
	}
	if fi.Mode().Perm()&^secretMode == 0 {
		return nil
	}
	f := warning("credentials.file", "chmod 600 "+path, "%s has mode %04o: others may read the secrets in it", path, fi.Mode().Perm())
	return []Finding{f.mended(func() error { return os.Chmod(path, secretMode) })}
}

func apiKey(c *config.Config, p profile.Profile) []Finding {
	const check = "credentials.api-key"
	api := c.API()
	if !api.Key.IsSet() {
		return nil // none on loopback, or one that the gateway makes
	}
	where := placed(c, "api_server.key")
	key := api.Key.Reveal()
	set := "set API_SERVER_KEY anew " + where + "; a good one: head -c 32 /dev/urandom | base64"
	switch {
	case odd(key) != "":
		return []Finding{warning(check, set, "API_SERVER_KEY %s %s", where, odd(key))}
	case len(key) < shortKey && !access.LoopbackBind(api.Host):
		return []Finding{problem(check, set, "API_SERVER_KEY %s has %d characters and the API is open to other machines: it can be guessed", where, len(key))}
	case len(key) < shortKey:
		return []Finding{warning(check, set, "API_SERVER_KEY %s has only %d characters", where, len(key))}
	}
	return nil
}

func modelKey(c *config.Config) []Finding {
	const check = "credentials.model-key"
	m := c.Model()
	where := placed(c, "model.api_key")
	switch {
	case m.Provider != "openai":
		return nil
	case !m.APIKey.IsSet() && m.BaseURL == "":
		return []Finding{problem(check, "set HERMES_MODEL_API_KEY, or HERMES_MODEL_BASE_URL for a server that needs none",
			"the model provider is openai and there is no key for it")}
	case m.APIKey.IsSet() && odd(m.APIKey.Reveal()) != "":
		return []Finding{warning(check, "set HERMES_MODEL_API_KEY anew "+where, "HERMES_MODEL_API_KEY %s %s", where, odd(m.APIKey.Reveal()))}
	}
	return nil
}

// login of the dashboard, if it is wanted.
func login(c *config.Config) []Finding {
	const check = "credentials.dashboard"
	d := c.Dashboard()
	user, password := d.Username != "", d.Password.IsSet()
	switch {
	case !d.Enabled:
		return nil
	case user != password:
		return []Finding{problem(check, "set both HERMES_DASHBOARD_USERNAME and HERMES_DASHBOARD_PASSWORD, or neither", "the dashboard's login is incomplete")}
	case !user && !access.LoopbackBind(d.Host):
		return []Finding{problem(check, "set HERMES_DASHBOARD_USERNAME and HERMES_DASHBOARD_PASSWORD", "the dashboard is to be open to other machines (%s) without a login: it refuses", d.Host)}
	}
	return nil
}

// placed says where a setting came from.
func placed(c *config.Config, name string) string {
	s := c.Source(name)
	switch s.Kind {
	case config.FromEnvironment:
		return "in the environment"
	case config.FromDotenv, config.FromFile:
		return "in " + s.Where
	}
	return ""
}

// odd says what no key looks like; "" for one that might be.
func odd(key string) string {
	switch {
	case strings.TrimSpace(key) != key:
		return "begins or ends with a blank"
	case len(key) > 1 && strings.ContainsRune(`"'`, rune(key[0])) && key[0] == key[len(key)-1]:
		return "stands in quotes that are part of it"
	case strings.ContainsAny(key, " \t\n"):
		return "has a blank in it"
	}
	return ""
}
