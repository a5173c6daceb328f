package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/model/modelserver"
	"github.com/hermesgw/hermes/internal/model/openai"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/platform/irc"
	"github.com/hermesgw/hermes/internal/platform/irc/ngircdtest"
	"github.com/hermesgw/hermes/internal/store"
)

// scripted is a model server that misbehaves as messages tell it to.
func scripted(t *testing.T) (*modelserver.Server, func(*gateway.Options)) {
	t.Helper()
	s := modelserver.New(modelserver.Options{})
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Cleanup(s.Close)
	m, err := openai.New(openai.Options{BaseURL: server.URL + "/v1", Model: "scripted"})
	if err != nil {
		t.Fatal(err)
	}
	return s, withModel(m)
}

// onIRC connects a gateway to a real server as hermes, lets ann in, and lets no
// one wait for the pace that a server on the internet would want.
func onIRC(t *testing.T, server *ngircdtest.Server) func(*gateway.Options) {
	t.Helper()
	a, err := irc.New(irc.Options{
		Server: server.Addr, Nick: "hermes", Timing: irc.Timing{Line: 100 * time.Microsecond, Burst: 100, Backoff: 10 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(o *gateway.Options) {
		o.Adapters, o.Pairing = []platform.Adapter{a}, true
		o.Senders = access.Senders{Allow: []string{"irc:ann!~ann@127.0.0.1"}}
	}
}

// answers waits until hermes has said something more to p that has a word.
func answers(t *testing.T, p *ngircdtest.Person, word string) string {
	t.Helper()
	m := p.Await(t, word, func(m ircmsg.Message) bool {
		return m.Command == "PRIVMSG" && m.Nick() == "hermes" && len(m.Params) > 1 && strings.Contains(m.Params[1], word)
	})
	return m.Params[1]
}

// Whatever people send over a real IRC server, and whatever the model makes of
// it, they read one clear answer, and the next message is answered as ever.
func TestBadInputOverIRC(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	models, model := scripted(t)
	r := start(t, model, onIRC(t, server), func(o *gateway.Options) { o.MaxAnswer = 3000 })
	until(t, "it is on IRC", func() bool { return ready(r, "irc") })
	ann, bob := server.Join(t, "ann"), server.Join(t, "bob")
	for _, c := range []struct{ name, send, hears, asked string }{
		{"invalid UTF-8", "caf\xe9 noir", "caf\uFFFD noir", "caf\uFFFD noir"},
		{"control characters", "\x02bold\x02 \x0304red\x03 \x1b[31m\x07bell", "bold red [31mbell", "bold red [31mbell"},
		{"empty", "", "There was nothing to read", ""},
		{"white space", " \t ", "There was nothing to read", ""},
		{"only control characters", "\x02\x03\x0f", "There was nothing to read", ""},
		{"an empty action", "\x01ACTION \x01", "There was nothing to read", ""},
		{"an empty answer", "[[empty x9]] a", `the model "scripted" gave an empty answer`, "[[empty x9]] a"},
		{"a truncated answer", "[[truncate 2 x9]] b", "broke off in the middle of its answer", "[[truncate 2 x9]] b"},
		{"an answer that is not JSON", "[[json x9]] c", "Sorry, I could not answer that: the model", "[[json x9]] c"},
		{"an answer that is cut off", "[[reset 2 x9]] d", "Sorry, I could not answer that: the model", "[[reset 2 x9]] d"},
		{"an endless answer", "[[endless]] e", "The answer is cut off here: it is longer than 3000 bytes", "[[endless]] e"},
		{"and after all that", "hello", "hello", "hello"},
	} {
		before := len(models.Seen())
		ann.Say("hermes", c.send)
		if said := answers(t, ann, c.hears); !utf8.ValidString(said) {
			t.Errorf("%s: heard %q", c.name, said)
		}
		seen := models.Seen()[before:]
		if c.asked == "" && len(seen) > 0 || c.asked != "" && (len(seen) == 0 || seen[len(seen)-1].Text != c.asked) {
			t.Errorf("%s: the model was asked %+v", c.name, seen)
		}
	}

	// Who is not known is told how to be let in; nothing of it reaches the model.
	before := len(models.Seen())
	bob.Say("hermes", "let me in")
	answers(t, bob, "hermes pairing approve ")
	// A line of a megabyte is more than IRC has: the server sees to it.
	go bob.Raw("PRIVMSG hermes :" + strings.Repeat("x", 1<<20))
	ann.Say("hermes", "still there?")
	answers(t, ann, "still there?")
	if n := len(models.Seen()) - before; n != 1 {
		t.Errorf("the model was asked %d times", n)
	}
	adds(t, r)
}

func ready(r *running, name string) bool {
	for _, p := range r.Platforms() {
		if p.Name == name && p.State == "ready" {
			return true
		}
	}
	return false
}

// adds demands that every message is accounted for, with none open.
func adds(t *testing.T, r *running) {
	t.Helper()
	count := func(name string) float64 { return r.metric(t, "hermes_messages_"+name) }
	until(t, "nothing is open", func() bool { return count("queued")+count("running") == 0 })
	if got, want := count("received_total"), count("answered_total")+count("failed_total"); got != want {
		t.Errorf("received %v, answered or failed %v", got, want)
	}
}

// Ten thousand lines of code arrive over IRC whole and in order, in parts that
// are whole code blocks each.
func TestLongCodeBlockOverIRC(t *testing.T) {
	const lines = 10_000
	var code strings.Builder
	for i := range lines {
		fmt.Fprintf(&code, "    line(%d) // of code\n", i)
	}
	server := ngircdtest.Start(t, ngircdtest.Options{})
	r := start(t, onIRC(t, server), withModel(script(func(_ context.Context, _ chat.Request, emit func(string) error) (chat.Reply, error) {
		return say("Here:\n```go\n"+code.String()+"```\nDone.", emit)
	})))
	until(t, "it is on IRC", func() bool { return ready(r, "irc") })
	ann := server.Join(t, "ann")
	ann.Say("hermes", "much code, please")
	heard := 0
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		told := ann.Told("hermes")
		if len(told) > 0 && told[len(told)-1] == "Done." {
			break
		}
		if len(told) > heard {
			heard, deadline = len(told), time.Now().Add(patience)
		}
		if time.Now().After(deadline) {
			t.Fatalf("no more than %d lines came; the last is %q", heard, told[max(0, heard-1):])
		}
	}
	next, inside, blocks := 0, false, 0
	for i, line := range ann.Told("hermes") {
		switch {
		case line == "```" && inside:
			inside = false
		case line == "```go" && !inside:
			inside, blocks = true, blocks+1
		case line == fmt.Sprintf("    line(%d) // of code", next) && inside:
			next++
		case line != "Here:" && line != "Done." || inside:
			t.Fatalf("line %d, inside code %v, after %d lines of code: %q", i, inside, next, line)
		}
	}
	if next != lines || inside || blocks < 100 {
		t.Errorf("%d lines of code in %d blocks, inside one at the end: %v", next, blocks, inside)
	}
	adds(t, r)
}

// What cannot be a message over HTTP is refused with a reason; what is odd but
// can be is answered.
func TestBadInputOverHTTP(t *testing.T) {
	models, model := scripted(t)
	r := start(t, model, func(o *gateway.Options) { o.MaxMessage, o.MaxAnswer = 1<<20, 3000 })
	body := func(text string) string {
		return `{"messages":[{"role":"user","content":"` + text + `"}]}`
	}
	for _, c := range []struct {
		name, text string
		status     int
		want       string // of the answer
		asked      string
	}{
		{"invalid UTF-8", "caf\xe9", 200, "caf\uFFFD", "caf\uFFFD"},
		{"control characters", `a\u0000b\u001b[31mc`, 200, "", "a\x00b\x1b[31mc"},
		{"bare control characters", "a\x01b", 400, "is not JSON", ""},
		{"empty", "", 400, "the user's message is empty", ""},
		{"white space", ` \t\r\n\u2003`, 400, "the user's message is empty", ""},
		{"a megabyte, more than the model takes", strings.Repeat("x", 1<<20), 400, "context_length_exceeded", ""},
		{"a megabyte and a byte", strings.Repeat("x", 1<<20+1), 413, "larger than 1 MiB", ""},
		{"an empty answer", "[[empty x9]] a", 502, "gave an empty answer", "[[empty x9]] a"},
		{"a truncated answer", "[[truncate 2 x9]] b", 503, "broke off", "[[truncate 2 x9]] b"},
		{"an answer that is not JSON", "[[json x9]] c", 503, "model_unavailable", "[[json x9]] c"},
		{"an endless answer", "[[endless]] e", 200, `"finish_reason":"length"`, "[[endless]] e"},
		{"and after all that", "hello", 200, "hello", "hello"},
	} {
		before := len(models.Seen())
		resp, got := r.post(t, body(c.text))
		if resp.StatusCode != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s %.300s", c.name, resp.Status, got)
		}
		if c.status != http.StatusOK {
			errorShape(t, got)
		}
		seen := models.Seen()[before:]
		if c.asked == "" && len(seen) > 0 || c.asked != "" && (len(seen) != 1 && c.want != "gave an empty answer" || seen[len(seen)-1].Text != c.asked) {
			t.Errorf("%s: the model was asked %+v", c.name, seen)
		}
	}
	adds(t, r)
}

// A megabyte that the model has room for reaches it whole.
func TestMegabyteReachesAModelThatTakesIt(t *testing.T) {
	models, model := scripted(t)
	r := start(t, model, func(o *gateway.Options) { o.ContextTokens = 1 << 20 })
	resp, got := r.post(t, `{"messages":[{"role":"user","content":"`+strings.Repeat("x", 1<<20)+`"}]}`)
	if seen := models.Seen(); resp.StatusCode != http.StatusOK || len(seen) != 1 || seen[0].Tokens != 1<<18 {
		t.Errorf("%s %.300s, the model saw %+v", resp.Status, got, seen)
	}
}

// /stop ends an answer that would go on for hours, and its own answer does not
// wait for the rest.
func TestStopEndsWhatIsBeingSaid(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	a, err := irc.New(irc.Options{Server: server.Addr, Nick: "hermes", Timing: irc.Timing{Line: 100 * time.Millisecond, Burst: 1}})
	if err != nil {
		t.Fatal(err)
	}
	db := openStore(t, filepath.Join(t.TempDir(), store.FileName))
	r := start(t, onIRC(t, server), func(o *gateway.Options) { o.Adapters, o.Store = []platform.Adapter{a}, db },
		withModel(script(func(_ context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
			if strings.HasPrefix(req.Messages[len(req.Messages)-1].Text, "much") {
				return say(strings.Repeat("and so on, ", 100_000), emit)
			}
			return say("short", emit)
		})))
	until(t, "it is on IRC", func() bool { return ready(r, "irc") })
	ann := server.Join(t, "ann")
	ann.Say("hermes", "much, please")
	answers(t, ann, "and so on")
	ann.Say("hermes", "/stop")
	answers(t, ann, "The rest of what I was saying is dropped")
	ann.Say("hermes", "hello")
	answers(t, ann, "short")
	until(t, "nothing is being sent", func() bool { return r.metric(t, "hermes_deliveries_open") == 0 })
	if left, err := db.OpenParts(t.Context(), a.Account(), 0); err != nil || len(left) > 0 {
		t.Errorf("a restart would send %d parts, %v", len(left), err)
	}
	if n := r.metric(t, "hermes_dead_letters"); n != 0 {
		t.Errorf("%v dead letters", n)
	}
	adds(t, r)
}
