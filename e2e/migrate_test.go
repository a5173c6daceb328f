package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// existingHome is a directory that the predecessor left, made anew in a bind
// mount: dotenv becomes .env, half of it belongs to root.
func existingHome(t *testing.T) string {
	t.Helper()
	fixture, err := filepath.Abs("testdata/existing-home")
	if err != nil {
		t.Fatal(err)
	}
	dir := bind(t)
	mustDocker(t, "run", "--rm", "--label", label(), "-v", fixture+":/fixture:ro", "-v", dir+":/mnt", "-w", "/mnt", "--entrypoint", "sh", image(), "-c",
		`cp -r /fixture/. . && for d in . profiles/work profiles/shop; do mv $d/dotenv $d/.env; done &&
		chown -R 10000:10000 . && chown 0:0 config.yaml .env gateway.lock gateway.pid gateway_state.json && chown -R 0:0 skills logs profiles/work &&
		chmod 600 .env config.yaml profiles/work/.env && chmod 700 profiles/work && find . -type f -exec touch -d '2026-05-28 07:12:44' {} +`)
	return dir
}

// files are content, size and time of every file of a directory, by path.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := mustDocker(t, "run", "--rm", "--label", label(), "-v", dir+":/mnt:ro", "-w", "/mnt", "--entrypoint", "sh", image(), "-c",
		`find . -type f | while read -r f; do echo "$f|$(stat -c '%s %y' "$f") $(sha256sum <"$f")"; done`)
	found := map[string]string{}
	for line := range strings.Lines(out) {
		path, state, _ := strings.Cut(line, "|")
		found[path] = strings.TrimSpace(state)
	}
	return found
}

// The predecessor's volume, mounted as it is: what it wanted up is up, its
// settings count where they mean the same, the rest is named, and no file of
// its is another afterwards.
func TestExistingHomeIsTakenOverAndLeftAsItIs(t *testing.T) {
	parallel(t)
	dir := existingHome(t)
	before := files(t, dir)
	if len(before) < 20 {
		t.Fatalf("the fixture has only %d files: %v", len(before), before)
	}
	c := gateway(t, spec{flags: []string{"-v", dir + ":/opt/data"}})
	c.waitState("gateway-work", "ready")
	c.waitState("gateway-shop", "ready") // its API port goes into a file of our own
	c.wantService("gateway-family", "down", "down")
	c.chats()
	if got := c.mustExec("cat", "/opt/data/profiles/work/intent.json"); !strings.Contains(got, `"want":"up","by":"migration"`) {
		t.Errorf("intent of work: %s", got)
	}
	if got := c.mustExec("hermes", "-p", "work", "config", "show"); !strings.Contains(got, "8650") {
		t.Errorf("the port of work's .env is not used: %s", got)
	}
	for _, text := range []string{
		"gateway-default was stopped when its home was taken over",
		"gateway-family stays down: desired_state of gateway_state.json was stopped",
		"not settings of hermes, and not used: _config_version, agent, display, model.context_length, platforms, terminal, toolsets",
		"API_SERVER_ENABLED, GATEWAY_ALLOW_ALL_USERS, OPENROUTER_API_KEY, TELEGRAM_ALLOWED_USERS, TELEGRAM_BOT_TOKEN",
		"/opt/data/.env:7: expected NAME=value; the line is ignored",
		"model.provider stays at its default",
	} {
		if !strings.Contains(c.logs(), text) {
			t.Errorf("the logs do not say %q", text)
		}
	}
	if strings.Contains(c.logs(), "fixture-") {
		t.Error("the logs show a value of .env")
	}
	mustDocker(t, "restart", c.name)
	c.waitState("gateway-work", "ready")
	c.wantService("gateway-family", "down", "down")
	if n := strings.Count(c.logs(), "gateway-work: found an existing home"); n != 1 {
		t.Errorf("the old wish was read %d times", n)
	}
	c.stop()
	after := files(t, dir)
	for path, was := range before {
		if after[path] != was {
			t.Errorf("%s was %q, is %q", path, was, after[path])
		}
	}
}
