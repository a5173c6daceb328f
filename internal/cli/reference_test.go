package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/s6slots"
)

var update = flag.Bool("update", false, "write the generated pages of docs/reference anew")

const (
	docsDir      = "../../docs"
	referenceDir = docsDir + "/reference"
	generated    = "<!-- Generated from the code by `make docs`; a test compares. Change the code, not this page. -->\n\n"
)

// The pages that say what the code says are written by the code.
func TestReferenceIsWhatTheCodeSays(t *testing.T) {
	pages := map[string]string{
		"commands.md":    commandsPage(t),
		"environment.md": environmentPage(),
		"exit-codes.md":  exitCodesPage(),
		"states.md":      statesPage(),
		"config.md":      configPage(),

		"config.schema.json": string(config.Schema()),
	}
	for name, want := range pages {
		path := filepath.Join(referenceDir, name)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s does not say what the code says; run make docs and look at the difference: %s", path, firstDifference(string(got), want))
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is %q, the code says %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("it has %d lines, the code makes %d", len(g), len(w))
}

// commandTree returns every command that --help leads to, in its order.
func commandTree(root *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{root}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			list = append(list, commandTree(c)...)
		}
	}
	return list
}

// help is what `hermes … --help` prints.
func help(t *testing.T, path ...string) string {
	t.Helper()
	var out bytes.Buffer
	root := newRoot(&options{in: strings.NewReader(""), out: &out, err: &out})
	root.SetArgs(append(path, "--help"))
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("hermes %s --help: %v", strings.Join(path, " "), err)
	}
	return out.String()
}

// arguments are the words after hermes that lead to cmd.
func arguments(cmd *cobra.Command) []string { return strings.Fields(cmd.CommandPath())[1:] }

func commandsPage(t *testing.T) string {
	t.Helper()
	var index, body strings.Builder
	for _, cmd := range commandTree(newRoot(&options{})) {
		path := cmd.CommandPath()
		fmt.Fprintf(&index, "- [`%s`](#%s): %s\n", path, strings.ReplaceAll(path, " ", "-"), cmd.Short)
		fmt.Fprintf(&body, "\n## %s\n\n```text\n%s\n```\n", path, strings.TrimRight(help(t, arguments(cmd)...), "\n"))
	}
	return "# Commands\n\n" + generated +
		"What every command's `--help` prints. `-p PROFILE` works with each of them; `-o json` with each that prints a\n" +
		"table. What they exit with stands under [exit codes](exit-codes.md).\n\n" + index.String() + body.String()
}

func environmentPage() string {
	var b strings.Builder
	b.WriteString("# Environment and settings\n\n" + generated +
		"A setting is looked for in this order: flag, environment, the profile's `.env`, the profile's `config.yaml`,\n" +
		"default. A setting without a key in `config.yaml` is read before any profile is known, so it stands in the\n" +
		"environment only. `hermes config show --sources` prints every value and where it came from; secrets print as\n" +
		"`<redacted>`.\n\n" +
		"Booleans are strict: `1`, `true` and `yes`, in any case, mean yes; everything else in a variable means no, typos\n" +
		"included. In `config.yaml` a boolean that is neither yes nor no is an error, and so it is in the variable of one that\n" +
		"is `true` by default. Lists are YAML lists in `config.yaml`; in a variable they have commas between their items.\n" +
		"Empty variables for ports, addresses, lists and keys count as not given. A `_FILE` variable names a file to read the secret from, by its absolute path;\n" +
		"giving both forms is an error.\n\n" +
		"Settings marked *profile* belong to one profile: in a container the environment speaks of the profile of the main\n" +
		"program, and no other profile's gateway sees them. Give the others their own in `profiles/NAME/.env`.\n\n" +
		"| variable | in `config.yaml` | accepts | default | meaning |\n|---|---|---|---|---|\n")
	for _, s := range config.Settings() {
		key := "environment only"
		if s.Key != "" {
			key = "`" + s.Key + "`"
		}
		doc := s.Doc
		if s.PerProfile {
			doc += " *profile*"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", code(s.Names(), "<br>"), key, accepts(s), settingDefault(s), doc)
	}
	return b.String() + withheldPart()
}

// withheldPart says what of the container's environment a slot does not get.
func withheldPart() string {
	var profiles, dashboard, guard []string
	for _, s := range config.Settings() {
		switch {
		case s.PerProfile:
			profiles = append(profiles, s.Names()...)
		case s.Viewer == config.DashboardSlot:
			dashboard = append(dashboard, s.Names()...)
		case s.Viewer == config.GuardSlot:
			guard = append(guard, s.Names()...)
		}
	}
	return "\n## What a slot sees of it\n\n" +
		"A slot gets the container's environment, but for these names. `hermes -p NAME gateway show-env` lists what the\n" +
		"gateway of a profile sees, where each value comes from, and what is withheld and why; never a value.\n\n" +
		"| withheld | from |\n|---|---|\n" +
		"| " + code(profiles, ", ") + " | every slot but the gateway of the main program's profile |\n" +
		"| names of no setting that end in " + code(config.CredentialEnds(), ", ") + ", also before `_FILE`, in any case | the same |\n" +
		"| " + code(dashboard, ", ") + " | every slot but the dashboard |\n" +
		"| " + code(guard, ", ") + " | every slot but the guard |\n" +
		"| names that begin with `DBOS__` | every slot |\n\n" +
		"The gateway reads its profile's `.env` by itself: what stands there is not put into its environment, so nothing that\n" +
		"it starts inherits it. A slot's own entry adds `HERMES_HOME`, `HERMES_RUN_DIR`, the mark of the slot and, where the container\n" +
		"has none, `TMPDIR`: a directory below the run directory, made for each run and removed after it. A `TMPDIR` of your\n" +
		"own is left alone, and what is left in it is yours to remove. Services of your own in `/etc/services.d` get the\n" +
		"environment whole.\n"
}

func code(words []string, between string) string {
	return "`" + strings.Join(words, "`"+between+"`") + "`"
}

func settingDefault(s config.Setting) string {
	switch {
	case s.DefaultDoc != "":
		return s.DefaultDoc
	case s.Default != "":
		return "`" + s.Default + "`"
	}
	return "none"
}

func accepts(s config.Setting) string {
	switch s.Kind {
	case config.Int:
		return "a whole number" + bounds(s, func(n int64) string { return strconv.FormatInt(n, 10) })
	case config.Port:
		return "a port, `0` to `65535`; `0`: any free one"
	case config.Bool:
		return "a boolean"
	case config.Duration:
		return "a duration, such as `250ms` or `1m30s`" + bounds(s, func(n int64) string { return time.Duration(n).String() })
	case config.Size:
		return "bytes, such as `65536`, `64KiB` or `1MiB`" + bounds(s, config.SizeText)
	case config.Enum:
		return code(s.Values, ", ")
	case config.URL:
		if s.Secret {
			return "an http or https URL, secret"
		}
		return "an http or https URL"
	case config.List:
		return "a list; each item " + s.Shape
	case config.Text:
	}
	text := "text"
	if s.Shape != "" {
		text = s.Shape
	}
	if s.Secret {
		text += ", secret"
	}
	return text
}

// bounds are the numbers that s takes, in words.
func bounds(s config.Setting, write func(int64) string) string {
	var text string
	if s.Min > 0 || s.Kind == config.Int {
		text += " from `" + write(s.Min) + "`"
	}
	if s.Max > 0 {
		text += " to `" + write(s.Max) + "`"
	}
	if text != "" && s.Kind != config.Int {
		return "," + text
	}
	return text
}

// configExample shows each form that a setting may have; TestExamplesOfSettings
// holds it against the schema and the loader.
const configExample = `# Of the default profile.
model:
  provider: openai
  base_url: http://127.0.0.1:11434/v1
  name: llama3.2
  context_tokens: 8000
  timeout: 5m
  fallback: {provider: openai, base_url: https://models.example.org/v1, name: small}

access:
  allow: [irc:account:alice, irc:account:bob]
  admins:
    - irc:account:alice

irc:
  server: irc.example.org
  nick: hermes
  channels: ['#help', '#talk'] # quoted: # begins a comment

retention:
  days: 90
  max_bytes: 512MiB

log:
  level: info
`

func configPage() string {
	var b strings.Builder
	b.WriteString("# Settings in config.yaml\n\n" + generated +
		"`config.yaml` stands in the home of a profile; what is secret belongs in `.env` beside it. How to look at settings and\n" +
		"change them: [change settings](../how-to/settings.md). Every setting has a variable too, which counts more; the rules\n" +
		"for variables, and what of the container's environment reaches whom: [environment](environment.md).\n\n" +
		"`hermes config schema` prints the [JSON schema](config.schema.json) of this file. The schema knows each setting by\n" +
		"itself and takes a key that it does not know for a mistake; the gateway warns of such a key and ignores it. What must\n" +
		"fit together is told by `hermes config check`.\n\n" +
		"```yaml\n" + configExample + "```\n")
	section := ""
	for _, s := range config.Settings() {
		if s.Key == "" {
			continue
		}
		name, _, _ := strings.Cut(s.Key, ".")
		if name != section {
			section = name
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | accepts | default | meaning | variable |\n|---|---|---|---|---|\n", name, effect(s))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", s.Key, accepts(s), settingDefault(s), s.Doc, code(s.Names(), "<br>"))
	}
	return b.String()
}

// effect says whose a section is, and from when on a change of it counts.
func effect(s config.Setting) string {
	switch {
	case s.Global():
		return "Of the container, from the default profile alone. A change counts from the next start of the container."
	case s.PerProfile:
		return "Of one profile. A change counts after `hermes gateway restart`."
	}
	return "Of each process; its variables reach every profile. A change counts after `hermes gateway restart`."
}

func exitCodesPage() string {
	var b strings.Builder
	b.WriteString("# Exit codes\n\n" + generated +
		"Of every hermes command, and of a container: its exit code is that of its main program (see\n" +
		"[supervision](../explanation/supervision.md#exit-code)). A failure is one line on stderr.\n\n" +
		"| code | meaning |\n|---|---|\n")
	for _, e := range exitcode.Table() {
		fmt.Fprintf(&b, "| %d | %s |\n", e.Code, e.Meaning)
	}
	fmt.Fprintf(&b, "| %d + n | killed by signal n |\n", exitcode.SignalBase)
	return b.String()
}

func statesPage() string {
	var b strings.Builder
	b.WriteString("# States of a service\n\n" + generated +
		"The same words appear in `hermes gateway status`, the [JSON](status-json.md), `/readyz`, the dashboard and the logs.\n" +
		"The last two columns say what a health check thinks of a service in that state.\n\n" +
		"| state | meaning | `hermes healthcheck` | `hermes healthcheck --ready` |\n|---|---|---|---|\n")
	for _, e := range supervise.States() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", e.State, e.Meaning, wellIn(e.State, false), wellIn(e.State, true))
	}
	return b.String() +
		"\n`hermes healthcheck` speaks for the container, which holds more than one service, so a gateway that is `degraded` does\n" +
		"not take the others out with it, whatever fails. [`/readyz`](http-api.md) speaks for one gateway, and is 503 while that would\n" +
		"not answer a message: also when it is `degraded` because its own `http` fails.\n"
}

// wellIn asks the health check itself about a wanted service in state.
func wellIn(state supervise.State, ready bool) string {
	at := func(age time.Duration) bool {
		now := time.Now()
		since := now.Add(-age)
		report := supervise.Report{Services: []supervise.Service{{Name: "x", State: state, Want: supervise.WantUp, Since: &since}}}
		return len(s6slots.Culprits(report, ready, startingPatience, now)) == 0
	}
	if state == supervise.Disabled || state == supervise.Down {
		return "not asked" // nobody wants it up
	}
	switch young, old := at(0), at(startingPatience+time.Second); {
	case young && old:
		return "well"
	case young:
		return fmt.Sprintf("well for %.0f s", startingPatience.Seconds())
	}
	return "not well"
}

// Without this a tree that lost its commands would still compare equal.
func TestReferenceHasEveryCommandOfTheContract(t *testing.T) {
	var have []string
	for _, cmd := range commandTree(newRoot(&options{})) {
		have = append(have, strings.Join(arguments(cmd), " "))
	}
	for _, want := range []string{
		"gateway run", "gateway start", "gateway stop", "gateway restart", "gateway status", "gateway list", "gateway logs",
		"profile list", "profile create", "profile show", "profile use", "profile rename", "profile delete", "dashboard", "chat", "healthcheck", "doctor", "config show", "config get", "config set", "config edit", "config check", "config schema", "version",
		"completion bash", "completion zsh", "completion fish",
	} {
		if !slices.Contains(have, want) {
			t.Errorf("there is no command hermes %s", want)
		}
	}
}

func TestEveryCommandHasWordsAndAnExample(t *testing.T) {
	for _, cmd := range commandTree(newRoot(&options{})) {
		if cmd.Short == "" {
			t.Errorf("%s has no short description", cmd.CommandPath())
		}
		if !strings.Contains(cmd.Example, "hermes") {
			t.Errorf("%s has no example in its help", cmd.CommandPath())
		}
	}
}
