package irc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/platform/irc"
	"github.com/hermesgw/hermes/internal/platform/irc/ngircdtest"
	"github.com/hermesgw/hermes/internal/platform/platformtest"
	"github.com/hermesgw/hermes/internal/secret"
	"github.com/hermesgw/hermes/internal/supervise"
)

// quick are pauses that a test can wait for.
func quick() irc.Timing {
	return irc.Timing{
		Backoff: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond, Refused: 50 * time.Millisecond, RefusedMax: 100 * time.Millisecond,
		Regain: 50 * time.Millisecond, Rejoin: 50 * time.Millisecond, RejoinMax: 200 * time.Millisecond,
		Line: time.Millisecond, Burst: 20, Confirm: ngircdtest.Patience,
	}
}

// wire is a way to the server that can be cut: at once, or silently, so that
// nothing comes through and nobody is told.
type wire struct {
	ln     net.Listener
	target string

	mu     sync.Mutex
	cut    bool
	silent bool
	conns  []net.Conn
}

func newWire(t *testing.T, target string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{ln: ln, target: target}
	var wg sync.WaitGroup
	wg.Go(func() { w.serve(&wg) })
	t.Cleanup(func() { ln.Close(); w.drop(); wg.Wait() })
	return w
}

func (w *wire) serve(wg *sync.WaitGroup) {
	for {
		in, err := w.ln.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		cut := w.cut
		w.mu.Unlock()
		out, err := net.Dial("tcp", w.target)
		if cut || err != nil {
			in.Close()
			if err == nil {
				out.Close()
			}
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, in, out)
		w.mu.Unlock()
		wg.Go(func() { w.copy(out, in) })
		wg.Go(func() { w.copy(in, out) })
	}
}

func (w *wire) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		silent := w.silent
		w.mu.Unlock()
		if n > 0 && !silent {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *wire) set(cut, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.silent = cut, silent
}

func (w *wire) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// network is a real ngIRCd for the suite.
type network struct {
	t      *testing.T
	server *ngircdtest.Server
	wire   *wire
	a      *irc.Adapter
	people map[string]*ngircdtest.Person
}

func newNetwork(t *testing.T) platformtest.Network {
	const password = "let-me-in"
	server := ngircdtest.Start(t, ngircdtest.Options{Password: password})
	w := newWire(t, server.Addr)
	a, err := irc.New(irc.Options{Server: w.ln.Addr().String(), Nick: "hermes", ServerPassword: secret.New(password), Timing: quick()})
	if err != nil {
		t.Fatal(err)
	}
	return &network{t, server, w, a, map[string]*ngircdtest.Person{}}
}

func (n *network) Adapter() platform.Adapter { return n.a }
func (n *network) Nowhere() string           { return "nobody" }
func (n *network) Secrets() []string         { return []string{"let-me-in"} }

func (n *network) person(nick string) *ngircdtest.Person {
	if n.people[nick] == nil {
		n.people[nick] = n.server.Join(n.t, nick)
	}
	return n.people[nick]
}

func (n *network) Say(person, text string) error {
	n.person(person).Say("hermes", text)
	return nil
}

func (n *network) Heard(person string) []string { return n.person(person).Told("hermes") }

func (n *network) Cut() error {
	n.wire.set(true, false)
	n.wire.drop()
	return nil
}

func (n *network) Mend() error {
	n.wire.set(false, false)
	return nil
}

func TestConformance(t *testing.T) { platformtest.Run(t, newNetwork) }

// host takes everything in.
type host struct {
	mu      sync.Mutex
	got     []platform.Inbound
	state   supervise.State
	reason  string
	reasons []string
}

func (h *host) Accept(_ context.Context, m platform.Inbound) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, m)
	return nil
}

func (h *host) Cursor(context.Context, string) (string, error) { return "", nil }

func (h *host) Report(state supervise.State, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state, h.reason, h.reasons = state, reason, append(h.reasons, reason)
}

func (h *host) taken() []platform.Inbound {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

func (h *host) told() (supervise.State, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state, h.reason
}

// running is an adapter that runs until the test ends.
type running struct {
	*irc.Adapter
	t *testing.T
	h *host
}

func run(t *testing.T, o irc.Options) *running {
	t.Helper()
	if o.Nick == "" {
		o.Nick = "hermes"
	}
	if o.Timing == (irc.Timing{}) {
		o.Timing = quick()
	}
	a, err := irc.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{a, t, &host{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, r.h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *running) until(what string, condition func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(ngircdtest.Patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			state, reason := r.h.told()
			r.t.Fatalf("not in time: %s; %s %q, taken in %+v", what, state, reason, r.h.taken())
		}
	}
}

func (r *running) ready() *running {
	r.t.Helper()
	r.until("ready", func() bool { state, _ := r.h.told(); return state == supervise.Ready })
	return r
}

func (r *running) say(chat, text string) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), ngircdtest.Patience)
	defer cancel()
	_, err := r.Send(ctx, platform.Outbound{Delivery: "dlv", Chat: chat, Text: text})
	return err
}

func (r *running) hears(count int) []platform.Inbound {
	r.t.Helper()
	r.until(fmt.Sprint(count, " messages are taken in"), func() bool { return len(r.h.taken()) >= count })
	return r.h.taken()
}

func said(nick, text string) func(ircmsg.Message) bool {
	return func(m ircmsg.Message) bool {
		return m.Command == "PRIVMSG" && m.Nick() == nick && strings.Contains(m.Params[1], text)
	}
}

func TestChannelsAndDirectMessages(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	r := run(t, irc.Options{Server: server.Addr, Channels: []string{"#ops"}}).ready()
	ann := server.Join(t, "ann", "#ops")
	ann.Say("#ops", "nobody in particular")
	ann.Say("#ops", "Hermes: hello there")
	ann.Say("hermes", "\x01ACTION waves\x01")
	ann.Say("hermes", "caf\xe9 \x0304red\x03")
	got := r.hears(3)
	if m := got[0]; m.Text != "hello there" || m.Direct || m.Chat != "#ops" || m.Sender.Name != "ann" {
		t.Errorf("%+v", m)
	}
	if m := got[1]; m.Text != "waves" || !m.Direct || m.Chat != "ann" || !strings.HasPrefix(m.Sender.ID, "ann!") || !strings.Contains(m.Sender.ID, "@") {
		t.Errorf("%+v", m)
	}
	if m := got[2]; m.Text != "caf\uFFFD red" {
		t.Errorf("%+v", m)
	}
	for chat, text := range map[string]string{"#ops": "to all", "ann": "to you"} {
		if err := r.say(chat, text); err != nil {
			t.Error(err)
		}
		ann.Await(t, text, said("hermes", text))
	}
	if err := r.say("#nowhere", "x"); platform.FateOf(err) != platform.Never {
		t.Errorf("a channel that is not there: %v", err)
	}
}

func TestTLS(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{TLS: true})
	r := run(t, irc.Options{Server: server.Addr, TLS: true, CAFile: server.CAFile}).ready()
	server.Join(t, "ann").Say("hermes", "in private")
	if got := r.hears(1); got[0].Text != "in private" {
		t.Errorf("%+v", got)
	}
	// A server that nobody vouches for is not spoken to.
	doubting := run(t, irc.Options{Server: server.Addr, TLS: true, Nick: "doubter"})
	doubting.until("it refuses", func() bool {
		state, reason := doubting.h.told()
		return state == supervise.Degraded && strings.Contains(reason, "certificate")
	})
}

func TestTakenNickIsRegained(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	thief := server.Join(t, "hermes")
	r := run(t, irc.Options{Server: server.Addr, Channels: []string{"#ops"}}).ready()
	ann := server.Join(t, "ann", "#ops")
	ann.Say("#ops", "hermes_: you there")
	if got := r.hears(1); got[0].Text != "you there" {
		t.Errorf("%+v", got)
	}
	if _, reason := r.h.told(); !strings.Contains(reason, "as hermes_") {
		t.Errorf("reported %q", reason)
	}
	thief.Leave()
	r.until("the nick is regained", func() bool { state, reason := r.h.told(); return state == supervise.Ready && reason == "" })
	ann.Say("#ops", "hermes: and now")
	if got := r.hears(2); got[1].Text != "and now" {
		t.Errorf("%+v", got)
	}
}

func TestComesBackAfterARestartOfTheServer(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	r := run(t, irc.Options{Server: server.Addr, Channels: []string{"#ops"}}).ready()
	server.Stop()
	r.until("the loss is seen", func() bool { state, _ := r.h.told(); return state != supervise.Ready })
	if err := r.say("#ops", "x"); platform.FateOf(err) != platform.Retry {
		t.Errorf("without a connection: %v", err)
	}
	server.Resume(t)
	r.ready()
	ann := server.Join(t, "ann", "#ops")
	if err := r.say("#ops", "back"); err != nil {
		t.Error(err)
	}
	ann.Await(t, "back", said("hermes", "back"))
}

// A connection that is open and carries nothing is found by asking, and a
// message that was under way on it is in doubt.
func TestSilentCutIsFound(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	w := newWire(t, server.Addr)
	timing := quick()
	timing.Ping = 100 * time.Millisecond
	r := run(t, irc.Options{Server: w.ln.Addr().String(), Timing: timing}).ready()
	server.Join(t, "ann")
	w.set(false, true)
	if err := r.say("ann", "lost?"); platform.FateOf(err) != platform.Unknown {
		t.Errorf("on a dead connection: %v", err)
	}
	r.until("the silence is seen", func() bool {
		r.h.mu.Lock()
		defer r.h.mu.Unlock()
		return slices.ContainsFunc(r.h.reasons, func(s string) bool { return strings.Contains(s, "silent") })
	})
	w.set(false, false)
	server.Restart(t) // the old nick must not linger until its own timeout
	r.ready()
}

// A server that punishes haste lets everything through, in order, and kills
// nobody.
func TestFloodIsPaced(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{Penalties: true})
	timing := quick()
	timing.Line, timing.Burst = 0, 0 // the defaults
	r := run(t, irc.Options{Server: server.Addr, Timing: timing}).ready()
	ann := server.Join(t, "ann")
	for i := range 4 {
		if err := r.say("ann", fmt.Sprintf("%d %s", i, strings.Repeat("word ", 120))); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	var seen []string
	for _, line := range ann.Told("hermes") {
		if first, _, _ := strings.Cut(line, " "); first != "word" {
			seen = append(seen, first)
		}
	}
	if strings.Join(seen, "") != "0123" {
		t.Errorf("heard %q", seen)
	}
	if state, reason := r.h.told(); state != supervise.Ready {
		t.Errorf("%s %s", state, reason)
	}
}

func TestKickedOutComesBackIn(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	op := server.Join(t, "op", "#ops") // the first in a channel is its operator
	r := run(t, irc.Options{Server: server.Addr, Channels: []string{"#ops"}}).ready()
	op.Raw("KICK #ops hermes :out")
	r.until("the kick is told", func() bool {
		r.h.mu.Lock()
		defer r.h.mu.Unlock()
		return slices.ContainsFunc(r.h.reasons, func(s string) bool { return strings.Contains(s, "kicked by op: out") })
	})
	r.ready()
	if err := r.say("#ops", "again"); err != nil {
		t.Error(err)
	}
	op.Await(t, "again", said("hermes", "again"))
}

func TestChannelWithAKey(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	op := server.Join(t, "op", "#locked")
	op.Raw("MODE #locked +k sesame")
	op.Await(t, "the key is set", func(m ircmsg.Message) bool { return m.Command == "MODE" })
	refused := run(t, irc.Options{Server: server.Addr, Nick: "keyless", Channels: []string{"#locked"}})
	refused.until("the refusal is told", func() bool {
		state, reason := refused.h.told()
		return state == supervise.Degraded && strings.Contains(reason, "not in #locked")
	})
	run(t, irc.Options{Server: server.Addr, Channels: []string{"#locked sesame"}}).ready()
}

func TestWrongServerPasswordIsTold(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{Password: "right"})
	r := run(t, irc.Options{Server: server.Addr, ServerPassword: secret.New("wrong-one")})
	r.until("the refusal is told", func() bool {
		state, reason := r.h.told()
		return state == supervise.Degraded && strings.Contains(reason, "refused us") && !strings.Contains(reason, "wrong-one")
	})
}

func TestOptionsThatCannotBe(t *testing.T) {
	for name, o := range map[string]irc.Options{
		"no port":         {Server: "irc.example.net", Nick: "h"},
		"a nick":          {Server: "a:1", Nick: "9lives"},
		"a line end":      {Server: "a:1", Nick: "h\r\nQUIT"},
		"half of SASL":    {Server: "a:1", Nick: "h", SASLUser: "u"},
		"a channel":       {Server: "a:1", Nick: "h", Channels: []string{"#a,#b"}},
		"a CA in clear":   {Server: "a:1", Nick: "h", CAFile: "x"},
		"no certificate":  {Server: "a:1", Nick: "h", TLS: true, CAFile: "/dev/null"},
		"a long password": {Server: "a:1", Nick: "h", ServerPassword: secret.New("a\nb")},
	} {
		if _, err := irc.New(o); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// script is a server that says what a test writes, for what ngIRCd has not.
func script(t *testing.T, talk func(conn net.Conn, next func(prefix string) string)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				lines := newLines(conn)
				talk(conn, lines.next)
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

type lines struct {
	conn net.Conn
	buf  []byte
}

func newLines(c net.Conn) *lines { return &lines{conn: c} }

// next returns the next line that begins with prefix; "" at the end.
func (l *lines) next(prefix string) string {
	for {
		if i := slices.Index(l.buf, '\n'); i >= 0 {
			line := strings.TrimSpace(string(l.buf[:i]))
			l.buf = l.buf[i+1:]
			if strings.HasPrefix(line, prefix) {
				return line
			}
			continue
		}
		part := make([]byte, 512)
		n, err := l.conn.Read(part)
		l.buf = append(l.buf, part[:n]...)
		if err != nil {
			return ""
		}
	}
}

// What the network vouches for is the id: the account, not the nick.
func TestSASLAndAccounts(t *testing.T) {
	sent := make(chan string, 1)
	addr := script(t, func(c net.Conn, next func(string) string) {
		next("CAP LS")
		fmt.Fprint(c, ":s CAP * LS :sasl=PLAIN account-tag message-tags server-time echo-message\r\n")
		next("CAP REQ")
		fmt.Fprint(c, ":s CAP * ACK :sasl account-tag message-tags server-time echo-message\r\n")
		next("AUTHENTICATE PLAIN")
		fmt.Fprint(c, "AUTHENTICATE +\r\n")
		sent <- next("AUTHENTICATE ")
		fmt.Fprint(c, ":s 903 hermes :ok\r\n")
		next("CAP END")
		fmt.Fprint(c, ":s 001 hermes :welcome\r\n:s 376 hermes :end\r\n")
		fmt.Fprint(c, "@account=Alice;msgid=m1;time=2026-01-02T03:04:05.678Z :ann!u@h PRIVMSG hermes :hi\r\n")
		line := next("PRIVMSG ann")
		fmt.Fprintf(c, "@msgid=m2 :hermes!u@h %s\r\n", line)
		fmt.Fprintf(c, ":s PONG s :%s\r\n", strings.TrimPrefix(strings.TrimPrefix(next("PING"), "PING "), ":"))
	})
	r := run(t, irc.Options{Server: addr, SASLUser: "bot", SASLPassword: secret.New("pass")}).ready()
	if got := <-sent; got != "AUTHENTICATE Ym90AGJvdABwYXNz" { // bot NUL bot NUL pass
		t.Errorf("sent %q", got)
	}
	m := r.hears(1)[0]
	if m.Sender.ID != "account:Alice" || m.ID != "msgid:m1" || m.At.UnixMilli() != 1767323045678 {
		t.Errorf("%+v", m)
	}
	receipt, err := r.Send(t.Context(), platform.Outbound{Delivery: "d", Chat: "ann", Text: "hello"})
	if err != nil || receipt.ID != "msgid:m2" {
		t.Errorf("%+v %v", receipt, err)
	}
}

func TestRefusedSASLIsToldAndNotHammered(t *testing.T) {
	var tries sync.Map
	addr := script(t, func(c net.Conn, next func(string) string) {
		next("CAP LS")
		fmt.Fprint(c, ":s CAP * LS :sasl\r\n")
		next("CAP REQ")
		fmt.Fprint(c, ":s CAP * ACK :sasl\r\n")
		next("AUTHENTICATE PLAIN")
		fmt.Fprint(c, "AUTHENTICATE +\r\n")
		next("AUTHENTICATE ")
		tries.Store(time.Now(), true)
		fmt.Fprint(c, ":s 904 hermes :SASL authentication failed\r\n")
	})
	timing := quick()
	timing.Refused, timing.RefusedMax = time.Hour, time.Hour
	r := run(t, irc.Options{Server: addr, SASLUser: "bot", SASLPassword: secret.New("wrong-pass"), Timing: timing})
	r.until("the refusal is told", func() bool {
		state, reason := r.h.told()
		return state == supervise.Degraded && strings.Contains(reason, "refused the SASL login") && !strings.Contains(reason, "wrong-pass")
	})
	n := 0
	tries.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d tries", n)
	}
}

// Without SASL an account is not silently given up.
func TestServerWithoutSASLIsRefused(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	r := run(t, irc.Options{Server: server.Addr, SASLUser: "bot", SASLPassword: secret.New("p")})
	r.until("it is told", func() bool {
		state, reason := r.h.told()
		return state == supervise.Degraded && strings.Contains(reason, "offers no SASL")
	})
}

func TestNickServ(t *testing.T) {
	asked := make(chan string, 1)
	addr := script(t, func(c net.Conn, next func(string) string) {
		next("CAP LS")
		fmt.Fprint(c, ":s CAP * LS :\r\n")
		next("CAP END")
		fmt.Fprint(c, ":s 001 hermes :welcome\r\n:s 376 hermes :end\r\n")
		asked <- next("PRIVMSG NickServ")
		fmt.Fprint(c, ":NickServ!n@s NOTICE hermes :You are now identified\r\n:s MODE hermes +r\r\n")
	})
	r := run(t, irc.Options{Server: addr, NickServPassword: secret.New("sesame")})
	if got := <-asked; got != "PRIVMSG NickServ :IDENTIFY sesame" {
		t.Errorf("%q", got)
	}
	r.ready()
}

func TestRunsOnce(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	r := run(t, irc.Options{Server: server.Addr}).ready()
	if err := r.Run(t.Context(), r.h); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a second Run: %v", err)
	}
}
