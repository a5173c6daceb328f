package config

import (
	"fmt"
	"slices"

	"github.com/hermesgw/hermes/internal/exitcode"
)

// rule is what settings must be to each other. The place that is named is that
// of the setting called key.
type rule struct {
	key    string
	broken func(c *Config) bool
	says   string
	warns  bool // it is allowed, and dangerous or without effect
}

// rules are held against settings that are each right by themselves. What has
// no effect alone warns and is no error: so two that need each other can be
// given one after the other.
func rules() []rule {
	return []rule{
		{key: "irc.sasl_password", broken: isWithout("irc.sasl_password", "irc.sasl_user"), says: "it needs irc.sasl_user beside it"},
		{key: "irc.sasl_user", broken: isWithout("irc.sasl_user", "irc.sasl_password"), says: "it has no effect without irc.sasl_password", warns: true},
		{key: "irc.ca_file", broken: func(c *Config) bool { return c.text("irc.ca_file") != "" && !c.IRC().TLS }, says: "it has no effect while irc.tls is false", warns: true},
		{key: "irc.channels", broken: isWithout("irc.channels", "irc.server"), says: "it has no effect without irc.server", warns: true},
		{key: "irc.tls", broken: tellsPasswordsInTheClear, says: "the passwords of irc are sent without encryption", warns: true},
		{key: "model.fallback.provider", broken: func(c *Config) bool { f := c.Model().Fallback; return f.Provider == "openai" && f.Name == "" }, says: "the provider openai needs model.fallback.name beside it"},
		{key: "model.fallback.name", broken: isWithout("model.fallback.name", "model.fallback.provider"), says: "it has no effect without model.fallback.provider", warns: true},
		{key: "model.fallback.base_url", broken: isWithout("model.fallback.base_url", "model.fallback.provider"), says: "it has no effect without model.fallback.provider", warns: true},
		{key: "model.fallback.api_key", broken: isWithout("model.fallback.api_key", "model.fallback.provider"), says: "it has no effect without model.fallback.provider", warns: true},
		{key: "access.allow", broken: names("access.allow", everybody), says: "* lets EVERYBODY talk to this gateway, strangers too, and its model is yours to pay for", warns: true},
		{key: "irc.allow", broken: names("irc.allow", everybody), says: "* lets EVERYBODY on IRC talk to this gateway, strangers too, and its model is yours to pay for", warns: true},
	}
}

// everybody stands for each and every id in a list of those who may.
const everybody = "*"

func isWithout(key, other string) func(*Config) bool {
	return func(c *Config) bool { return c.text(key) != "" && c.text(other) == "" }
}

func names(key, item string) func(*Config) bool {
	return func(c *Config) bool { return slices.Contains(c.list(key), item) }
}

func tellsPasswordsInTheClear(c *Config) bool {
	irc := c.IRC()
	return !irc.TLS && (irc.Password.IsSet() || irc.SASLPassword.IsSet() || irc.NickServPassword.IsSet())
}

// holdRules returns what breaks a rule and adds warnings. In an existing home a
// setting from a file that breaks one falls back to its default with a warning.
func (l *loader) holdRules() []error {
	var errs []error
	for _, r := range rules() {
		if !r.broken(l.config) {
			continue
		}
		v := l.config.values[r.key]
		err := fmt.Errorf("%s: %s", v.place, r.says)
		s, _ := Find(r.key)
		switch {
		case r.warns:
			l.warn("%v", err)
		case l.tolerate(s, v.source.Kind, err):
			l.config.values[r.key] = value{text: s.Default, source: Source{Kind: FromDefault}, secret: s.Secret}
		default:
			errs = append(errs, exitcode.With(exitcode.Config, err))
		}
	}
	return errs
}
