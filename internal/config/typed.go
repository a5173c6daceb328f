package config

import (
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/secret"
)

// APIServer is where a profile's HTTP API listens.
type APIServer struct {
	Host string
	Port int // 0..65535; 0 means any free port
	Key  secret.String
	// Requests is how many are served at once, 1..65536.
	Requests int
}

// API returns the settings below api_server.
func (c *Config) API() APIServer {
	return APIServer{Host: c.text("api_server.host"), Port: c.Int("api_server.port"), Key: c.secret("api_server.key"), Requests: c.Int("api_server.requests")}
}

// Model is what answers.
type Model struct {
	Provider string // offline, openai
	BaseURL  string // empty: the provider's own
	Name     string // empty: the provider's own
	APIKey   secret.String
	Delay    time.Duration // of the offline model, never negative
	// ContextTokens is how much of a conversation it is given, from 512.
	ContextTokens int
	Timeout       time.Duration // of one call, from 1s
	Retries       int           // after the first try, 0..100
	Fallback      Fallback
}

// Fallback is what answers when the model does not.
type Fallback struct {
	Provider string // offline, openai; empty: there is none
	BaseURL  string // empty: the provider's own
	Name     string // not empty for openai
	APIKey   secret.String
}

// Model returns the settings below model.
func (c *Config) Model() Model {
	return Model{
		Provider: c.text("model.provider"),
		BaseURL:  c.text("model.base_url"),
		Name:     c.text("model.name"),
		APIKey:   c.secret("model.api_key"),
		Delay:    c.duration("model.delay"),

		ContextTokens: c.Int("model.context_tokens"),
		Timeout:       c.duration("model.timeout"),
		Retries:       c.Int("model.retries"),
		Fallback: Fallback{
			Provider: c.text("model.fallback.provider"),
			BaseURL:  c.text("model.fallback.base_url"),
			Name:     c.text("model.fallback.name"),
			APIKey:   c.secret("model.fallback.api_key"),
		},
	}
}

// Dashboard is whether and where the dashboard listens.
type Dashboard struct {
	Enabled  bool
	Host     string
	Port     int // 0..65535; 0 means any free port
	Username string
	Password secret.String
}

// Dashboard returns the settings below dashboard. They are global: load them
// from the home of the default profile.
func (c *Config) Dashboard() Dashboard {
	return Dashboard{
		Enabled:  Truthy(c.text("dashboard.enabled")),
		Host:     c.text("dashboard.host"),
		Port:     c.Int("dashboard.port"),
		Username: c.text("dashboard.username"),
		Password: c.secret("dashboard.password"),
	}
}

// Notify is where an operator hears what becomes of the services.
type Notify struct {
	URL    secret.String // of a webhook; not set: nobody is told
	Secret secret.String // signs the messages; not set: they are not signed
}

// Notify returns the settings below notify. They are global: load them from
// the home of the default profile.
func (c *Config) Notify() Notify {
	return Notify{URL: c.secret("notify.webhook_url"), Secret: c.secret("notify.webhook_secret")}
}

// Log is how and how much is logged.
type Log struct {
	Format string // text, json
	Level  slog.Level
}

// Log returns the settings below log.
func (c *Config) Log() Log {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.text("log.level"))) // checked by Load
	return Log{Format: c.text("log.format"), Level: level}
}

// Int returns a setting of kind Int or Port by its Name; 0 if it has no value.
func (c *Config) Int(name string) int {
	n, _ := strconv.Atoi(c.text(name)) // checked by Load
	return n
}

// Busy is what a new message does while its chat is being answered.
type Busy string

// The values of chat.busy.
const (
	BusyQueue     Busy = "queue"     // it waits
	BusyInterrupt Busy = "interrupt" // it ends the turn that runs
)

// Chat is how messages of one chat become turns.
type Chat struct {
	Busy        Busy
	MergeWindow time.Duration // 0..5s; 0: every message is a turn of its own
}

// Chat returns the settings below chat.
func (c *Config) Chat() Chat {
	return Chat{Busy: Busy(c.text("chat.busy")), MergeWindow: c.duration("chat.merge_window")}
}

// Access is who may talk to the gateway.
type Access struct {
	Allow   []string // PLATFORM:KIND:NAME, or * for everybody
	Admins  []string // the same
	Pairing bool
}

// Access returns the settings below access.
func (c *Config) Access() Access {
	return Access{Allow: c.list("access.allow"), Admins: c.list("access.admins"), Pairing: Truthy(c.text("access.pairing"))}
}

// Limits is how much the gateway takes on.
type Limits struct {
	Running      int   // turns at once, from 1
	Queued       int   // messages that wait, from 1
	MessageBytes int64 // of one message, 1 KiB to 1 GiB
	AnswerBytes  int64 // of one answer, 1 KiB to 1 GiB
}

// Limits returns the settings below limits.
func (c *Config) Limits() Limits {
	return Limits{
		Running: c.Int("limits.running"), Queued: c.Int("limits.queued"),
		MessageBytes: c.size("limits.message_bytes"), AnswerBytes: c.size("limits.answer_bytes"),
	}
}

// Retention is how long finished conversations are kept.
type Retention struct {
	Days     int   // 0: age alone removes none
	MaxBytes int64 // of the database, from 16 MiB
}

// Retention returns the settings below retention.
func (c *Config) Retention() Retention {
	return Retention{Days: c.Int("retention.days"), MaxBytes: c.size("retention.max_bytes")}
}

// IRC is one account on one IRC server.
type IRC struct {
	Server   string // host or host:port; empty: IRC is off
	TLS      bool
	CAFile   string // empty: the system's authorities
	Nick     string
	User     string // empty: the nick
	Realname string // empty: the nick
	Channels []string
	Allow    []string // KIND:NAME, or * for everybody
	Password secret.String

	SASLUser         string        // without SASLPassword: no SASL
	SASLPassword     secret.String // never without SASLUser
	NickServPassword secret.String
}

// IRC returns the settings below irc.
func (c *Config) IRC() IRC {
	return IRC{
		Server:   c.text("irc.server"),
		TLS:      Truthy(c.text("irc.tls")),
		CAFile:   c.text("irc.ca_file"),
		Nick:     c.text("irc.nick"),
		User:     c.text("irc.user"),
		Realname: c.text("irc.realname"),
		Channels: c.list("irc.channels"),
		Allow:    c.list("irc.allow"),
		Password: c.secret("irc.password"),

		SASLUser:         c.text("irc.sasl_user"),
		SASLPassword:     c.secret("irc.sasl_password"),
		NickServPassword: c.secret("irc.nickserv_password"),
	}
}

// Webhook is what is believed of a webhook that comes in.
type Webhook struct {
	Secret secret.String // empty: webhooks are off
	Window time.Duration // how old one may be, 1s..24h
}

// Webhook returns the settings below webhook.
func (c *Config) Webhook() Webhook {
	return Webhook{Secret: c.secret("webhook.secret"), Window: c.duration("webhook.window")}
}

func (c *Config) text(name string) string          { return c.values[name].text }
func (c *Config) secret(name string) secret.String { return secret.New(c.values[name].text) }

func (c *Config) duration(name string) time.Duration {
	d, _ := time.ParseDuration(c.text(name)) // checked by Load
	return d
}

// size returns a setting of kind Size in bytes.
func (c *Config) size(name string) int64 {
	n, _ := parseSize(c.text(name)) // checked by Load
	return n
}

// list returns a setting of kind List; nil if it has no items.
func (c *Config) list(name string) []string { return listItems(c.text(name)) }

// listItems takes the normal form of a List apart.
func listItems(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}
