package config

import "slices"

// Kind is what a value must look like.
type Kind string

// The kinds of setting.
const (
	Text     Kind = "text"
	Int      Kind = "int"      // a whole number of at least Setting.Min
	Port     Kind = "port"     // 0..65535; 0 means any free port
	Bool     Kind = "bool"     // see Truthy
	Duration Kind = "duration" // as Go writes them: 250ms, 1m30s; not negative
	Enum     Kind = "enum"     // one of Setting.Values, in any case
	URL      Kind = "url"      // http or https with a host
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
	Min        int      // of an Int
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
	return s.Kind == Bool || s.Kind == Text && !s.Secret && s.Default == ""
}

// Settings returns the whole table in the order of the reference page.
func Settings() []Setting {
	return slices.Concat(containerSettings(), dashboardSettings(), logSettings(), notifySettings(), apiSettings(), modelSettings())
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
	}
}

func modelSettings() []Setting {
	return []Setting{
		{Key: "model.provider", Env: "HERMES_MODEL_PROVIDER", Kind: Enum, Values: []string{"offline", "openai"}, Default: "offline", PerProfile: true, Doc: "Who answers: the built-in `offline` model, or any OpenAI-compatible server."},
		{Key: "model.base_url", Env: "HERMES_MODEL_BASE_URL", Kind: URL, PerProfile: true, DefaultDoc: "the provider's own", Doc: "Base URL of the model server, such as `http://127.0.0.1:11434/v1`."},
		{Key: "model.api_key", Env: "HERMES_MODEL_API_KEY", Kind: Text, Secret: true, PerProfile: true, Doc: "Key for the model server."},
		{Key: "model.name", Env: "HERMES_MODEL_NAME", Kind: Text, PerProfile: true, DefaultDoc: "the provider's own", Doc: "Name of the model."},
		{Key: "model.delay", Env: "HERMES_MODEL_DELAY", Kind: Duration, Default: "0s", PerProfile: true, Doc: "How long the `offline` model waits before it answers."},
	}
}
