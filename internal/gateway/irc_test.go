package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/admin"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/platform/irc"
	"github.com/hermesgw/hermes/internal/platform/irc/ngircdtest"
	"github.com/hermesgw/hermes/internal/store"
)

// Four lines go out at once, each further one takes a second: help on eleven
// lines took seven.
func TestHelpOnIRCGoesOutAtOnce(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	r := start(t, onIRC(t, server))
	until(t, "it is on IRC", func() bool { return ready(r, "irc") })
	ann := server.Join(t, "ann")
	ann.Say("hermes", "/help")
	answers(t, ann, "/busy queue|interrupt - ")
	told := ann.Told("hermes")
	if len(told) > 3 {
		t.Errorf("help has %d lines: %q", len(told), told)
	}
	for _, line := range told[1:] {
		if !strings.HasPrefix(line, "/") {
			t.Errorf("a line begins in the middle of a command: %q", line)
		}
	}
	for _, name := range []string{"help", "new", "stop", "retry", "status", "usage", "model", "sessions", "resume NUMBER", "busy"} {
		if !strings.Contains(strings.Join(told, " "), " /"+name) {
			t.Errorf("no /%s in %q", name, told)
		}
	}
	adds(t, r)
}

// operate asks at the operator's door.
func operate(t *testing.T, r *running, method, path string, answer any) {
	t.Helper()
	w := httptest.NewRecorder()
	r.Admin().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/admin/"+path, http.NoBody))
	if w.Code != http.StatusOK || json.Unmarshal(w.Body.Bytes(), answer) != nil {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
}

// Who leaves in the middle of a long answer leaves one dead letter; replayed, the
// rest comes whole and in order.
func TestWhoLeavesInALongAnswerLeavesOneLetter(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	a, err := irc.New(irc.Options{Server: server.Addr, Nick: "hermes", Timing: irc.Timing{Line: 20 * time.Millisecond, Burst: 1}})
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for i := range 3000 {
		words = append(words, fmt.Sprint("word", i))
	}
	db := openStore(t, filepath.Join(t.TempDir(), store.FileName))
	r := start(t, onIRC(t, server), func(o *gateway.Options) { o.Adapters, o.Store = []platform.Adapter{a}, db },
		withModel(script(func(_ context.Context, _ chat.Request, emit func(string) error) (chat.Reply, error) {
			return say(strings.Join(words, " "), emit)
		})))
	until(t, "it is on IRC", func() bool { return ready(r, "irc") })
	ann := server.Join(t, "ann")
	ann.Say("hermes", "much, please")
	answers(t, ann, "word300 ")
	ann.Leave()
	until(t, "nothing is being sent", func() bool { return r.metric(t, "hermes_deliveries_open") == 0 })
	if n := r.metric(t, "hermes_dead_letters"); n != 1 {
		t.Errorf("%v dead letters", n)
	}
	var letters []admin.Letter
	operate(t, r, http.MethodGet, "deadletters", &letters)
	if len(letters) != 1 || !strings.HasPrefix(letters[0].Error, "parts ") || !strings.HasSuffix(letters[0].Error, "(401)") || !strings.HasSuffix(letters[0].Text, " word2999") {
		t.Fatalf("%+v", letters)
	}
	adds(t, r)

	again := server.Join(t, "ann")
	var done admin.Done
	operate(t, r, http.MethodPost, "deadletters/"+letters[0].ID+"/replay", &done)
	answers(t, again, "word2999")
	rest := slices.DeleteFunc(strings.Fields(strings.Join(again.Told("hermes"), " ")), func(word string) bool { return !strings.HasPrefix(word, "word") })
	first := slices.Index(words, strings.Fields(letters[0].Text)[0])
	if first < 1 || !slices.Equal(rest, words[first:]) {
		t.Errorf("%d words came, want those from %d on: %q", len(rest), first, rest)
	}
	operate(t, r, http.MethodGet, "deadletters", &letters)
	if len(letters) != 0 {
		t.Errorf("after the replay %+v", letters)
	}
	adds(t, r)
}
