package config

import (
	"slices"
	"strings"
	"time"
)

// Kind is what a value must look like.
type Kind string

// The kinds of setting.
const (
	Text     Kind = "text"
	Int      Kind = "int"      // a whole number from Setting.Min to Setting.Max
	Port     Kind = "port"     // 0..65535; 0 means any free port
	Bool     Kind = "bool"     // see Truthy
	Duration Kind = "duration" // as Go writes them: 250ms, 1m30s; not negative, at most Setting.Max nanoseconds
	Size     Kind = "size"     // bytes from Setting.Min to Setting.Max: 65536, 64KiB, 1MiB, 2GiB
	Enum     Kind = "enum"     // one of Setting.Values, in any case
	URL      Kind = "url"      // http or https with a host
	List     Kind = "list"     // texts: a YAML list, or one text with commas between them
)

// Setting is one row of the table: how a value is called in each place that
// may hold it, and what it must look like.
type Setting struct {
	// Key is its name in config.yaml, such as api_server.port. A setting
	// without one can stand in the environment only.
	Key string
	// Env is its name in the environment and, if it has a Key, in .env.
	Env string
	// Aliases are other names of Env, looked at when Env is not set.
	Aliases []string
	// Default is the value when no source has one.
	Default string
	// DefaultDoc says in words what happens without a value, where Default
	// alone would not.
	DefaultDoc string
	Kind       Kind
	Values     []string // of an Enum, lower case
	Min, Max   int64    // of an Int, Duration or Size, both included; Max 0: no bound of its own
	// Pattern is the regular expression that the whole of a Text, or of each
	// item of a List, must match; Shape says it in words. Empty: any text.
	Pattern, Shape string
	// Secret values print as <redacted> and may come from the file that
	// Env+"_FILE" names.
	Secret bool
	// PerProfile marks what belongs to one profile (credentials, ports, model)
	// and must never reach the slot of another: see StripForeign.
	PerProfile bool
	// Viewer is who alone may see a secret that belongs to no profile.
	Viewer Viewer
	Doc    string // one sentence for the reference page
}

// Name is the key, or the variable of a setting without one.
func (s Setting) Name() string {
	if s.Key != "" {
		return s.Key
	}
	return s.Env
}

// Names lists every variable that can set s, Env first, the _FILE forms last.
func (s Setting) Names() []string {
	names := append([]string{s.Env}, s.Aliases...)
	if s.Secret {
		for _, name := range slices.Clone(names) {
			names = append(names, name+fileSuffix)
		}
	}
	return names
}

// takesEmpty says whether an empty value is one. Container tools pass empty
// variables for what nobody gave, so an empty port, host or key counts as not
// given; else an empty key would open what a key in .env protects.
func (s Setting) takesEmpty() bool {
	if s.Kind == Bool {
		return !s.strict()
	}
	return s.Kind == Text && !s.Secret && s.Default == "" && s.Pattern == ""
}

// strict says whether a boolean is a protection that is on by default. Neither
// an empty variable nor a typo may take it away.
func (s Setting) strict() bool { return s.Kind == Bool && s.Default == yes }

// Global says whether a setting belongs to the container: it counts in the home
// of the default profile only.
func (s Setting) Global() bool {
	return strings.HasPrefix(s.Key, "dashboard.") || strings.HasPrefix(s.Key, "notify.")
}

// Find returns the setting with this key, or with this name if it has no key.
func Find(name string) (Setting, bool) {
	all := Settings()
	i := slices.IndexFunc(all, func(s Setting) bool { return s.Name() == name })
	if i < 0 {
		return Setting{}, false
	}
	return all[i], true
}

// Settings returns the whole table in the order of the reference page.
func Settings() []Setting {
	return slices.Concat(containerSettings(), dashboardSettings(), logSettings(), notifySettings(), apiSettings(), modelSettings(), fallbackSettings(),
		chatSettings(), accessSettings(), limitSettings(), retentionSettings(), ircSettings(), webhookSettings())
}

// containerSettings are read before any profile is known, so they stand in the
// environment only.
func containerSettings() []Setting {
	return []Setting{
		{Env: "HERMES_HOME", Kind: Text, DefaultDoc: "`/opt/data` in the image, else `~/.hermes`", Doc: "Data directory; also the home of the default profile."},
		{Env: "HERMES_RUN_DIR", Kind: Text, DefaultDoc: "at boot `/run`, or the first writable of `$XDG_RUNTIME_DIR` and `/tmp/hermes-<uid>`; everyone else finds the live one", Doc: "Sockets, scan directory and boot state; never on the data volume."},
		{Env: "HERMES_GATEWAY_NO_SUPERVISE", Kind: Bool, Default: "0", Doc: "Keeps `gateway run` in the foreground, as `--no-supervise` does."},
		{Env: "HERMES_S6_SUPERVISED_CHILD", Kind: Bool, DefaultDoc: "unset", Doc: "Set by a slot's entry only: marks the supervised gateway. Do not set it yourself."},
		{Env: "HERMES_RECONCILE", Kind: Bool, DefaultDoc: "`1` if the main program is a supervised `gateway run`, else `0`", Doc: "Whether this container starts slots from stored intent."},
		{Env: "HERMES_UID", Aliases: []string{"PUID"}, Kind: Int, Min: 1, Default: "10000", DefaultDoc: "the owner of the volume if that is not root, else `10000`", Doc: "User that the services run as when the container starts as root."},
		{Env: "HERMES_GID", Aliases: []string{"PGID"}, Kind: Int, Min: 1, Default: "10000", DefaultDoc: "the group of the volume's owner, else `10000`", Doc: "Group that the services run as when the container starts as root."},
		{Env: "HERMES_BACKOFF_MAX", Kind: Int, Min: 1, Default: "60", Doc: "Longest pause between restarts, in seconds."},
		{Env: "HERMES_STOP_TIMEOUT", Kind: Int, Min: 1, Default: "9", Doc: "The whole stop budget in seconds; Docker's own grace is 10."},
	}
}

func dashboardSettings() []Setting {
	return []Setting{
		{Key: "dashboard.enabled", Env: "HERMES_DASHBOARD", Kind: Bool, Default: "0", Doc: "Supervises the dashboard beside the gateway."},
		{Key: "dashboard.host", Env: "HERMES_DASHBOARD_HOST", Kind: Text, Default: "127.0.0.1", Doc: "Address the dashboard listens on; beyond loopback it needs both credentials."},
		{Key: "dashboard.port", Env: "HERMES_DASHBOARD_PORT", Kind: Port, Default: "9119", Doc: "Port the dashboard listens on."},
		{Key: "dashboard.username", Env: "HERMES_DASHBOARD_USERNAME", Kind: Text, Doc: "User name of the dashboard's login."},
		{Key: "dashboard.password", Env: "HERMES_DASHBOARD_PASSWORD", Kind: Text, Secret: true, Viewer: DashboardSlot, Doc: "Password of the dashboard's login."},
	}
}

func logSettings() []Setting {
	return []Setting{
		{Key: "log.format", Env: "HERMES_LOG_FORMAT", Kind: Enum, Values: []string{"text", "json"}, Default: "text", Doc: "How log lines look."},
		{Key: "log.level", Env: "HERMES_LOG_LEVEL", Kind: Enum, Values: []string{"debug", "info", "warn", "error"}, Default: "info", Doc: "The least level that is logged."},
	}
}

// notifySettings are the guard's. The URL is a secret: with most services it
// holds the token.
func notifySettings() []Setting {
	return []Setting{
		{Key: "notify.webhook_url", Env: "HERMES_NOTIFY_WEBHOOK_URL", Kind: URL, Secret: true, Viewer: GuardSlot, DefaultDoc: "nobody is told", Doc: "Where the guard posts what becomes of the services."},
		{Key: "notify.webhook_secret", Env: "HERMES_NOTIFY_WEBHOOK_SECRET", Kind: Text, Secret: true, Viewer: GuardSlot, DefaultDoc: "the messages are not signed", Doc: "Key of the messages' signature, the header `X-Hermes-Signature`."},
	}
}

func apiSettings() []Setting {
	return []Setting{
		{Key: "api_server.host", Env: "API_SERVER_HOST", Kind: Text, Default: "127.0.0.1", PerProfile: true, Doc: "Address of the profile's HTTP API."},
		{Key: "api_server.port", Env: "API_SERVER_PORT", Kind: Port, Default: "8642", DefaultDoc: "`8642`; a profile other than the main program's is assigned one from `8643` up", PerProfile: true, Doc: "Port of the profile's HTTP API."},
		{Key: "api_server.key", Env: "API_SERVER_KEY", Kind: Text, Secret: true, PerProfile: true, DefaultDoc: "none on loopback; beyond it one is generated into `.env`", Doc: "Bearer key of the profile's HTTP API."},
		{Key: "api_server.requests", Env: "API_SERVER_REQUESTS", Kind: Int, Min: 1, Max: 65536, Default: "1024", PerProfile: true, Doc: "Requests that the HTTP API serves at once, and as many webhooks; further ones get 503."},
	}
}

func modelSettings() []Setting {
	return []Setting{
		{Key: "model.provider", Env: "HERMES_MODEL_PROVIDER", Kind: Enum, Values: modelProviders(), Default: "offline", PerProfile: true, Doc: "Who answers: the built-in `offline` model, or any OpenAI-compatible server."},
		{Key: "model.base_url", Env: "HERMES_MODEL_BASE_URL", Kind: URL, PerProfile: true, DefaultDoc: "the provider's own", Doc: "Base URL of the model server, such as `http://127.0.0.1:11434/v1`."},
		{Key: "model.api_key", Env: "HERMES_MODEL_API_KEY", Kind: Text, Secret: true, PerProfile: true, Doc: "Key for the model server."},
		{Key: "model.name", Env: "HERMES_MODEL_NAME", Kind: Text, PerProfile: true, DefaultDoc: "the provider's own", Doc: "Name of the model."},
		{Key: "model.delay", Env: "HERMES_MODEL_DELAY", Kind: Duration, Default: "0s", PerProfile: true, Doc: "How long the `offline` model waits before it answers."},
		{Key: "model.context_tokens", Env: "HERMES_MODEL_CONTEXT_TOKENS", Kind: Int, Min: 512, Default: "16000", PerProfile: true, Doc: "Tokens of a conversation that the model is given; what is older is summarized."},
		{Key: "model.timeout", Env: "HERMES_MODEL_TIMEOUT", Kind: Duration, Min: int64(time.Second), Default: "10m0s", PerProfile: true, Doc: "Longest time of one call of the model, its answer included."},
		{Key: "model.retries", Env: "HERMES_MODEL_RETRIES", Kind: Int, Max: 100, Default: "4", PerProfile: true, Doc: "How often a failed call of the model is tried again."},
	}
}

// modelProviders are the words for who answers.
func modelProviders() []string { return []string{"offline", "openai"} }

// fallbackSettings are of the model that answers when the first one does not.
func fallbackSettings() []Setting {
	return []Setting{
		{Key: "model.fallback.provider", Env: "HERMES_MODEL_FALLBACK_PROVIDER", Kind: Enum, Values: modelProviders(), PerProfile: true, DefaultDoc: "none: there is no fallback", Doc: "Who answers when the first model fails for good."},
		{Key: "model.fallback.base_url", Env: "HERMES_MODEL_FALLBACK_BASE_URL", Kind: URL, PerProfile: true, DefaultDoc: "the provider's own", Doc: "Base URL of the fallback's server."},
		{Key: "model.fallback.api_key", Env: "HERMES_MODEL_FALLBACK_API_KEY", Kind: Text, Secret: true, PerProfile: true, Doc: "Key for the fallback's server."},
		{Key: "model.fallback.name", Env: "HERMES_MODEL_FALLBACK_NAME", Kind: Text, PerProfile: true, Doc: "Name of the fallback model; `openai` needs one."},
	}
}

func chatSettings() []Setting {
	return []Setting{
		{Key: "chat.busy", Env: "HERMES_CHAT_BUSY", Kind: Enum, Values: []string{"queue", "interrupt"}, Default: "queue", PerProfile: true, Doc: "What a new message does while its chat is being answered: it waits, or it ends that turn."},
		{Key: "chat.merge_window", Env: "HERMES_CHAT_MERGE_WINDOW", Kind: Duration, Max: int64(5 * time.Second), Default: "0s", PerProfile: true, Doc: "Messages of one chat within this time become one turn; `0s`: each its own."},
	}
}

// The shape of who may talk: the ids that a network vouches for. On IRC that is an
// account, or where there is none nick!user@host as the server shows it, which is
// compared as it stands: masks such as *!*@host are none.
const (
	ircID          = `account:[^\s,]+|[^\s,:!@*]+![^\s,@*]+@[^\s,*]+`
	adminPattern   = `irc:(` + ircID + `)`
	wholeIDPattern = `\*|` + adminPattern
	wholeIDShape   = "an id such as irc:account:alice or irc:nick!user@host, or * for everybody"
	ircIDPattern   = `\*|` + ircID
	ircIDShape     = "an id such as account:alice or nick!user@host, or * for everybody"
)

func accessSettings() []Setting {
	return []Setting{
		{Key: "access.allow", Env: "HERMES_ACCESS_ALLOW", Kind: List, Pattern: wholeIDPattern, Shape: wholeIDShape, PerProfile: true, DefaultDoc: "nobody", Doc: "Who may talk to the gateway, on every network; `*` lets everybody."},
		{Key: "access.admins", Env: "HERMES_ACCESS_ADMINS", Kind: List, Pattern: adminPattern, Shape: "an id such as irc:account:alice or irc:nick!user@host", PerProfile: true, DefaultDoc: "nobody", Doc: "Who may talk to the gateway and is also told, by `/status`, how all chats are."},
		{Key: "access.pairing", Env: "HERMES_ACCESS_PAIRING", Kind: Bool, Default: "true", PerProfile: true, Doc: "Whether a stranger is given a code that an operator can approve."},
	}
}

func limitSettings() []Setting {
	return []Setting{
		{Key: "limits.running", Env: "HERMES_LIMITS_RUNNING", Kind: Int, Min: 1, Default: "512", PerProfile: true, Doc: "Turns that run at once; further ones wait."},
		{Key: "limits.queued", Env: "HERMES_LIMITS_QUEUED", Kind: Int, Min: 1, Default: "10000", PerProfile: true, Doc: "Messages that wait at most; further ones are refused, not lost."},
		{Key: "limits.message_bytes", Env: "HERMES_LIMITS_MESSAGE_BYTES", Kind: Size, Min: 1 << 10, Max: 1 << 30, Default: "1MiB", PerProfile: true, Doc: "Longest message that is accepted."},
		{Key: "limits.answer_bytes", Env: "HERMES_LIMITS_ANSWER_BYTES", Kind: Size, Min: 1 << 10, Max: 1 << 30, Default: "1MiB", PerProfile: true, Doc: "Longest answer of the model that is taken; what is longer is cut, and says so."},
	}
}

func retentionSettings() []Setting {
	return []Setting{
		{Key: "retention.days", Env: "HERMES_RETENTION_DAYS", Kind: Int, Max: 36500, Default: "0", PerProfile: true, Doc: "Days after which a finished conversation goes; `0`: age alone removes none."},
		{Key: "retention.max_bytes", Env: "HERMES_RETENTION_MAX_BYTES", Kind: Size, Min: 16 << 20, Default: "1GiB", PerProfile: true, Doc: "Size of the database at which the oldest finished conversations go."},
	}
}

// A line break in a word that is sent to an IRC server would be a command of
// its own, so no setting of irc takes one.
const (
	ircWord     = `[^\s,:@!\x00-\x1f\x7f][^\s,@!\x00-\x1f\x7f]*`
	ircText     = `[^\x00-\x1f\x7f]+`
	ircNick     = "[A-Za-z\\[\\]\\\\`_^{|}][A-Za-z0-9\\[\\]\\\\`_^{|}-]*"
	ircChannel  = `[#&+!][^\s,:\x00-\x1f\x7f]+( [^\s,:\x00-\x1f\x7f]+)?`
	ircServer   = `([^\s/@,:\[\]]+|\[[^\s/@,\[\]]+\])(:` + portNumber + `)?|[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*`
	portNumber  = `([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])`
	ircTextIs   = "text without control characters"
	ircWordIs   = "one word without , @ and !"
	ircServerIs = "a host or host:port, such as irc.example.org:6697"
)

func ircSettings() []Setting {
	return []Setting{
		{Key: "irc.server", Env: "IRC_SERVER", Kind: Text, Pattern: ircServer, Shape: ircServerIs, PerProfile: true, DefaultDoc: "none: IRC is off", Doc: "IRC server to connect to, as host or host:port; the port is `6697` with TLS, else `6667`."},
		{Key: "irc.tls", Env: "IRC_TLS", Kind: Bool, Default: "true", PerProfile: true, Doc: "Whether the connection is encrypted and the server's certificate checked."},
		{Key: "irc.ca_file", Env: "IRC_CA_FILE", Kind: Text, Pattern: `/[^\x00-\x1f\x7f]*`, Shape: "an absolute path", PerProfile: true, DefaultDoc: "the system's authorities", Doc: "PEM file of the authorities that may sign the server's certificate."},
		{Key: "irc.nick", Env: "IRC_NICK", Kind: Text, Pattern: ircNick, Shape: "a nick name", Default: "hermes", PerProfile: true, Doc: "Nick name to ask for."},
		{Key: "irc.user", Env: "IRC_USER", Kind: Text, Pattern: ircWord, Shape: ircWordIs, PerProfile: true, DefaultDoc: "the nick name", Doc: "User name of the connection."},
		{Key: "irc.realname", Env: "IRC_REALNAME", Kind: Text, Pattern: ircText, Shape: ircTextIs, PerProfile: true, DefaultDoc: "the nick name", Doc: "Real name of the connection, which everybody can read."},
		{Key: "irc.channels", Env: "IRC_CHANNELS", Kind: List, Pattern: ircChannel, Shape: "a channel such as #help", PerProfile: true, Doc: "Channels to join, each with its key behind a blank if it has one."},
		{Key: "irc.allow", Env: "IRC_ALLOW", Kind: List, Pattern: ircIDPattern, Shape: ircIDShape, PerProfile: true, DefaultDoc: "nobody", Doc: "Who may talk to the gateway on IRC, beside `access.allow`; `*` lets everybody."},
		{Key: "irc.password", Env: "IRC_PASSWORD", Kind: Text, Pattern: ircText, Shape: ircTextIs, Secret: true, PerProfile: true, Doc: "Password of the IRC server."},
		{Key: "irc.sasl_user", Env: "IRC_SASL_USER", Kind: Text, Pattern: ircText, Shape: ircTextIs, PerProfile: true, Doc: "Account to log in to with SASL."},
		{Key: "irc.sasl_password", Env: "IRC_SASL_PASSWORD", Kind: Text, Pattern: ircText, Shape: ircTextIs, Secret: true, PerProfile: true, Doc: "Password of the SASL account."},
		{Key: "irc.nickserv_password", Env: "IRC_NICKSERV_PASSWORD", Kind: Text, Pattern: ircText, Shape: ircTextIs, Secret: true, PerProfile: true, Doc: "Password that NickServ is told, where there is no SASL."},
	}
}

func webhookSettings() []Setting {
	return []Setting{
		{Key: "webhook.secret", Env: "WEBHOOK_SECRET", Kind: Text, Secret: true, PerProfile: true, DefaultDoc: "none: webhooks are off", Doc: "Secret that the senders of webhooks sign with (HMAC)."},
		{Key: "webhook.window", Env: "WEBHOOK_WINDOW", Kind: Duration, Min: int64(time.Second), Max: int64(24 * time.Hour), Default: "5m0s", PerProfile: true, Doc: "How far from now a webhook may have been signed; a repeat within it is the same message."},
	}
}
