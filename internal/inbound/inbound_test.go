package inbound_test

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/inbound"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/turn"
)

const (
	account  = "test/bot"
	patience = 10 * time.Second
)

// adapter is a network that nobody connects to: what would be sent is read from
// the outbox.
type adapter struct{}

func (adapter) Platform() string                         { return "test" }
func (adapter) Account() string                          { return account }
func (adapter) Limits() platform.Limits                  { return platform.Limits{Text: 4000} }
func (adapter) Run(context.Context, platform.Host) error { return nil }
func (adapter) Send(context.Context, platform.Outbound) (platform.Receipt, error) {
	return platform.Receipt{}, nil
}

// brain answers "re: TEXT", fails where that is "fail", and waits while it is
// "wait" until it is cancelled.
type brain struct{ began chan string }

func (b brain) Answer(ctx context.Context, t agent.Turn) (agent.Result, error) {
	var said []string
	for _, m := range t.News {
		said = append(said, m.Text)
	}
	text := strings.Join(said, "+")
	b.began <- text
	if text == "fail" {
		return agent.Result{}, &chat.Error{Kind: chat.Unavailable, Message: "the model is away"}
	}
	if strings.HasPrefix(text, "wait") {
		<-ctx.Done()
		return agent.Result{}, ctx.Err()
	}
	return agent.Result{Reply: chat.Reply{Text: "re: " + text, Finish: chat.FinishStop, Usage: chat.Usage{Input: 2, Output: 3}}, Model: "brain"}, nil
}

// desk is a desk under test and all that is behind it.
type desk struct {
	t       *testing.T
	db      *store.Store
	turns   *turn.Engine
	host    platform.Host
	began   chan string
	seen    int64 // the last part that was read
	refused int
	n       int
}

func newDesk(t *testing.T, change ...func(*inbound.Options)) *desk {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d := &desk{t: t, db: db, began: make(chan string, 100)}
	d.turns, err = turn.New(turn.Options{
		Journal: db, Agent: brain{d.began},
		Parts: func(m turn.Message, text string) []outbox.Part { return inbound.Parts(adapter{}, m, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.turns.Abort)
	o := inbound.Options{
		Turns: d.turns, Store: db, Senders: access.Senders{Allow: []string{"test:alice"}, Admins: []string{"test:root"}},
		Model: "brain", Refused: func() { d.refused++ }, Status: func() string { return "ready" },
	}
	for _, f := range change {
		f(&o)
	}
	in, err := inbound.New(o)
	if err != nil {
		t.Fatal(err)
	}
	d.host = in.Host(adapter{}, func(supervise.State, string) {})
	return d
}

func (d *desk) message(sender, text string) platform.Inbound {
	d.n++
	return platform.Inbound{
		Account: account, ID: fmt.Sprint("ext", d.n), Chat: sender, Direct: true, Text: text,
		Sender: platform.Sender{ID: sender, Name: sender},
	}
}

func (d *desk) accept(in platform.Inbound) {
	d.t.Helper()
	if err := d.host.Accept(d.t.Context(), in); err != nil {
		d.t.Fatal(err)
	}
}

// reply waits for the next thing that is said.
func (d *desk) reply() string {
	d.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		parts, err := d.db.OpenParts(d.t.Context(), account, d.seen)
		if err != nil {
			d.t.Fatal(err)
		}
		if len(parts) > 0 {
			d.seen = parts[0].Seq
			return parts[0].Text
		}
	}
	d.t.Fatal("nothing was said")
	return ""
}

// say is a message of alice and its answer.
func (d *desk) say(text string) string {
	d.t.Helper()
	d.accept(d.message("alice", text))
	return d.reply()
}

func (d *desk) balanced() turn.Tally {
	d.t.Helper()
	n := d.turns.Tally()
	kept, err := d.db.Tally(d.t.Context())
	if err != nil || n != kept || n.Received != n.Answered+n.Failed+n.Queued+n.Running {
		d.t.Errorf("in memory %+v, on disk %+v, %v", n, kept, err)
	}
	return n
}

func TestAMessageIsAnsweredOnce(t *testing.T) {
	d := newDesk(t)
	in := d.message("alice", "hello")
	d.accept(in)
	if got := d.reply(); got != "re: hello" {
		t.Errorf("%q", got)
	}
	d.accept(in) // the network delivers it again
	if got := d.say("and?"); got != "re: and?" {
		t.Errorf("%q", got)
	}
	if n := d.balanced(); n.Received != 2 || n.Answered != 2 {
		t.Errorf("%+v", n)
	}
}

func TestStrangersAreToldHowToBeLetIn(t *testing.T) {
	d := newDesk(t, func(o *inbound.Options) { o.Pairing = true })
	d.accept(d.message("mallory", "/status"))
	offer := d.reply()
	code := regexp.MustCompile(`\b[A-Z2-9]{8}\b`).FindString(offer)
	if code == "" || !strings.Contains(offer, "hermes pairing approve "+code) {
		t.Fatalf("%q", offer)
	}
	d.accept(d.message("mallory", "again")) // who repeats is not told again
	in := d.message("eve", "hello all")
	in.Direct, in.Chat = false, "#room"
	d.accept(in) // a channel is not filled with refusals
	if n := d.turns.Tally(); n.Received != 0 || d.refused != 3 || len(d.began) != 0 {
		t.Errorf("%+v, refused %d, began %d", n, d.refused, len(d.began))
	}
	if got := d.say("me"); got != "re: me" {
		t.Errorf("the next thing said is %q", got)
	}
}

func TestWithoutConfigurationNobodyIsLetIn(t *testing.T) {
	d := newDesk(t, func(o *inbound.Options) { o.Senders = access.Senders{} })
	d.accept(d.message("alice", "hello"))
	if got := d.reply(); !strings.Contains(got, "may not talk") || !strings.Contains(got, "test:alice") {
		t.Errorf("%q", got)
	}
	if len(d.began) != 0 {
		t.Error("a turn began")
	}
}

// A network whose texts may have lines gets one for each command; IRC does not,
// see internal/gateway.
func TestHelpHasALineForEachCommand(t *testing.T) {
	help := newDesk(t).say("/help")
	if n := strings.Count(help, "\n/"); n != 10 || strings.Count(help, "\n") != n {
		t.Errorf("%d commands in\n%s", n, help)
	}
}

func TestCommands(t *testing.T) {
	d := newDesk(t)
	for _, step := range []struct{ say, want string }{
		{"/help", "/resume NUMBER"},
		{"/nonsense", "no command /nonsense"},
		{"/", "no command /."},
		{"/retry", "nothing to answer again"},
		{"/sessions", "no conversation yet"},
		{"first talk", "re: first talk"},
		{"/usage", "1 message answered, 2 tokens read, 3 written"},
		{"/model", "brain"},
		{"//model", "brain"},
		{"/busy\tqueue", "wait until I have answered"},
		{"/status", "nothing waits here"},
		{"/NEW", "new conversation"},
		{"second talk", "re: second talk"},
		{"/sessions", "1. "},
		{"/resume 9", "from 1 to 2"},
		{"/resume 2", "first talk"},
		{"/stop", "nothing to stop"},
		{"/busy", "queue"},
		{"/busy interrupt", "interrupts"},
		{" ", "nothing to read"},
	} {
		if got := d.say(step.say); !strings.Contains(got, step.want) {
			t.Errorf("%s: %q lacks %q", step.say, got, step.want)
		}
	}
	c, err := d.db.Chat(t.Context(), platform.Key("test", "alice", ""))
	if err != nil {
		t.Fatal(err)
	}
	if history, err := d.db.History(t.Context(), c.Session); err != nil || len(history) != 2 || history[0].Text != "first talk" {
		t.Errorf("resumed %v, %v", history, err)
	}
	d.balanced()
}

// Only an admin is told how all chats are.
func TestStatusOfAllChatsIsForAdmins(t *testing.T) {
	d := newDesk(t)
	for sender, want := range map[string]bool{"alice": false, "root": true} {
		d.accept(d.message(sender, "/status"))
		if got := d.reply(); strings.Contains(got, "In all chats: 0 running") != want || !strings.Contains(got, "nothing waits here") {
			t.Errorf("%s is told %q", sender, got)
		}
	}
}

// A command that is delivered twice is run once.
func TestCommandIsRunOnce(t *testing.T) {
	d := newDesk(t)
	in := d.message("alice", "/new")
	d.accept(in)
	d.reply()
	first, _ := d.db.Chat(t.Context(), platform.Key("test", "alice", ""))
	d.accept(in)
	if again, _ := d.db.Chat(t.Context(), platform.Key("test", "alice", "")); again != first {
		t.Errorf("%+v became %+v", first, again)
	}
	if n := d.balanced(); n.Received != 1 {
		t.Errorf("%+v", n)
	}
}

// Who got no answer can tell the operator which message that was.
func TestFailureNamesTheMessage(t *testing.T) {
	d := newDesk(t)
	if got := d.say("/status"); strings.Contains(got, "last message") {
		t.Errorf("before any: %q", got)
	}
	apology := d.say("fail")
	id := regexp.MustCompile(`kept as (msg_\w+);`).FindStringSubmatch(apology)
	if id == nil || !strings.Contains(apology, "the model is away") {
		t.Fatalf("%q", apology)
	}
	if m, err := d.db.Find(t.Context(), id[1]); err != nil || m.State != turn.Failed {
		t.Errorf("%+v, %v", m, err)
	}
	if got, want := d.say("/status"), "its last message "+id[1]+" (failed: unavailable)"; !strings.Contains(got, want) {
		t.Errorf("%q lacks %q", got, want)
	}
	d.say("/retry")
	if m, err := d.db.Find(t.Context(), id[1]); err != nil || m.Settled != "replayed" {
		t.Errorf("after /retry %+v, %v", m, err)
	}
	if dead, err := d.db.DeadMessages(t.Context(), 10); err != nil || len(dead) != 1 || dead[0].ReplayOf != id[1] {
		t.Errorf("dead letters %+v, %v", dead, err)
	}
	d.say("fine")
	if got := d.say("/status"); !strings.Contains(got, " (answered)") || strings.Contains(got, id[1]) {
		t.Errorf("%q", got)
	}
}

func TestRetryAnswersAgainWithoutTheOldAnswer(t *testing.T) {
	d := newDesk(t)
	d.say("one")
	d.say("two")
	if got := d.say("/retry"); got != "re: two" {
		t.Errorf("%q", got)
	}
	c, _ := d.db.Chat(t.Context(), platform.Key("test", "alice", ""))
	history, err := d.db.History(t.Context(), c.Session)
	var said []string
	for _, m := range history {
		said = append(said, m.Text)
	}
	if got := strings.Join(said, "|"); err != nil || got != "one|re: one|two|re: two" {
		t.Errorf("%q %v", got, err)
	}
}

func TestStopAlwaysWorks(t *testing.T) {
	d := newDesk(t)
	d.accept(d.message("alice", "wait"))
	<-d.began
	d.accept(d.message("alice", "queued"))
	if got := d.say("/stop"); got != "Stopped, with 1 message that waited." {
		t.Errorf("%q", got)
	}
	for deadline := time.Now().Add(patience); d.turns.Tally().Running > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := d.balanced(); n.Failed != 2 || n.Answered != 1 {
		t.Errorf("%+v", n)
	}
}

func TestNewMessageInterruptsWhereTheChatSaysSo(t *testing.T) {
	d := newDesk(t)
	d.say("/busy interrupt")
	d.accept(d.message("alice", "wait for ever"))
	<-d.began
	if got := d.say("never mind"); got != "re: never mind" {
		t.Errorf("%q", got)
	}
	c, _ := d.db.Chat(t.Context(), platform.Key("test", "alice", ""))
	if history, _ := d.db.History(t.Context(), c.Session); len(history) != 3 || history[0].Text != "wait for ever" {
		t.Errorf("%v", history)
	}
}

func TestBadMessages(t *testing.T) {
	d := newDesk(t, func(o *inbound.Options) { o.MaxMessage = 100 })
	if got := d.say("a\xffb\x00c\x1b[31md\re"); got != "re: a\uFFFDbc[31mde" {
		t.Errorf("%q", got)
	}
	if got := d.say(strings.Repeat("x", 101)); !strings.Contains(got, "too long: 101 bytes, and I take 100") {
		t.Errorf("%q", got)
	}
	if n := d.balanced(); n.Received != 1 {
		t.Errorf("%+v", n)
	}
}

func TestWhoSpeaksInARoomIsTold(t *testing.T) {
	d := newDesk(t)
	in := d.message("alice", "hi")
	in.Direct, in.Chat, in.Sender.Name = false, "#room", "Alice"
	d.accept(in)
	if got := d.reply(); got != "re: Alice: hi" {
		t.Errorf("%q", got)
	}
}

func TestWhileDrainingOneIsTold(t *testing.T) {
	d := newDesk(t)
	d.turns.Close()
	if got := d.say("hello"); !strings.Contains(got, "cannot take that now") {
		t.Errorf("%q", got)
	}
}
