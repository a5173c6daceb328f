package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/testenv"
)

func read(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// change makes a change and writes it.
func change(t *testing.T, dir, name, value string) {
	t.Helper()
	c, err := config.Set(config.Options{Home: dir}, name, value)
	if err == nil {
		err = c.Write()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A secret takes the place of whatever set it in .env, _FILE forms too: two
// that contradict each other would park the gateway.
func TestSetSecretReplacesEveryFormOfIt(t *testing.T) {
	dir := home(t, map[string]string{
		".env": "# keys\nAPI_SERVER_KEY='old\nold' # c\nOTHER=1\nexport API_SERVER_KEY_FILE=/k\n# end",
	})
	if err := os.Chmod(filepath.Join(dir, ".env"), 0o644); err != nil {
		t.Fatal(err)
	}
	change(t, dir, "api_server.key", `it's $new "x"`)
	if got, want := read(t, dir, ".env"), "# keys\nOTHER=1\nAPI_SERVER_KEY=\"it's \\$new \\\"x\\\"\"\n# end"; got != want {
		t.Errorf(".env is %q, want %q", got, want)
	}
	if key := load(t, config.Options{Home: dir}).API().Key; key.Reveal() != `it's $new "x"` {
		t.Errorf("it is read as %q", key.Reveal())
	}
	if fi, err := os.Stat(filepath.Join(dir, ".env")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestUnsetLooksIntoBothFiles(t *testing.T) {
	dir := home(t, map[string]string{".env": "A=1\nHERMES_MODEL_NAME=a\n", "config.yaml": "model: {name: b, delay: 1s}\n"})
	c, err := config.Unset(config.Options{Home: dir}, "model.name")
	if err == nil {
		err = c.Write()
	}
	if err != nil || read(t, dir, ".env") != "A=1\n" || read(t, dir, "config.yaml") != "model: {delay: 1s}\n" {
		t.Errorf("%v: %q %q", err, read(t, dir, ".env"), read(t, dir, "config.yaml"))
	}
}

// The settings are held together before a byte is written.
func TestWhatIsWrongIsNotWritten(t *testing.T) {
	files := map[string]string{".env": "IRC_SASL_PASSWORD=sesame\nIRC_SASL_USER=me\n", "config.yaml": "irc: {sasl_user: me}\nlog: {level: info}\n"}
	dir := home(t, files)
	for name, code := range map[string]int{"log.level": exitcode.Usage, "nothing": exitcode.Usage, "HERMES_UID": exitcode.Usage, "model.fallback.provider": exitcode.Config} {
		c, err := config.Set(config.Options{Home: dir}, name, "openai")
		if err == nil || c != nil || exitcode.Of(err) != code || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v, code %d", name, err, exitcode.Of(err))
		}
	}
	if _, err := config.Unset(config.Options{Home: home(t, map[string]string{".env": files[".env"]})}, "irc.sasl_user"); exitcode.Of(err) != exitcode.Config {
		t.Errorf("the user of a password was removed: %v", err)
	}
	_, err := config.Set(config.Options{Home: dir, Lookup: environment(map[string]string{"API_SERVER_PORT": "x"})}, "log.level", "warn")
	if exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), "environment variable API_SERVER_PORT") {
		t.Errorf("beside a wrong variable: %v", err)
	}
	for name, text := range files {
		if got := read(t, dir, name); got != text {
			t.Errorf("%s became %q", name, got)
		}
	}
}

// Whoever wrote between the reading and the writing keeps what they wrote.
func TestWriteRefusesAFileThatChanged(t *testing.T) {
	dir := home(t, map[string]string{"config.yaml": "log: {level: info}\n"})
	c, err := config.Set(config.Options{Home: dir}, "log.level", "warn")
	if err != nil {
		t.Fatal(err)
	}
	theirs := "log: {level: debug}\n"
	if err := os.WriteFile(config.Path(dir), []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(); err == nil || !strings.Contains(err.Error(), "somebody else has changed") || read(t, dir, "config.yaml") != theirs {
		t.Errorf("%v: %q", err, read(t, dir, "config.yaml"))
	}
	c, errs := config.Replace(config.Options{Home: dir}, nil, []byte("log: {level: warn}\n"))
	if err := c.Write(); len(errs) > 0 || err == nil {
		t.Errorf("a file that appeared was replaced: %v %v", errs, err)
	}
}

// The .env of an existing home is the predecessor's.
func TestSetLeavesAnInheritedDotenvAlone(t *testing.T) {
	const theirs = "no assignment\nHERMES_MODEL_API_KEY=theirs\n"
	dir := home(t, map[string]string{"SOUL.md": "", ".env": theirs})
	change(t, dir, "irc.password", "mine")
	change(t, dir, "irc.password", "mine2")
	if got := read(t, dir, "hermes.env"); got != "IRC_PASSWORD=mine2\n" {
		t.Errorf("hermes.env is %q", got)
	}
	_, err := config.Set(config.Options{Home: dir}, "model.api_key", "mine")
	if exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), ".env:2 sets HERMES_MODEL_API_KEY") {
		t.Errorf("theirs: %v", err)
	}
	c, err := config.Unset(config.Options{Home: dir}, "irc.password")
	if err == nil {
		err = c.Write()
	}
	if err != nil || read(t, dir, "hermes.env") != "" || read(t, dir, ".env") != theirs {
		t.Errorf("%v: %q, %q", err, read(t, dir, "hermes.env"), read(t, dir, ".env"))
	}
}

// A file that root changes stays its owner's.
func TestChangeKeepsTheOwner(t *testing.T) {
	testenv.Need(t, "root")
	dir := home(t, map[string]string{"config.yaml": "log: {level: info}\n"})
	if err := os.Chown(config.Path(dir), 10000, 10001); err != nil {
		t.Fatal(err)
	}
	change(t, dir, "log.level", "warn")
	fi, err := os.Stat(config.Path(dir))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Uid != 10000 || st.Gid != 10001 {
		t.Errorf("it belongs to %d:%d now", st.Uid, st.Gid)
	}
}
