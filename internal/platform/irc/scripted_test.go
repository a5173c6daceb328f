package irc_test

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/platform/irc"
	"github.com/hermesgw/hermes/internal/secret"
)

// scripted is a server that plays what ngIRCd has not. The test is its brain.
type scripted struct {
	t    *testing.T
	l    net.Listener
	conn net.Conn
	in   *bufio.Reader
	caps string // what it offers
}

func newScripted(t *testing.T, caps string) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{t: t, l: l, caps: caps}
	t.Cleanup(func() {
		l.Close()
		if s.conn != nil {
			s.conn.Close()
		}
	})
	return s
}

func (s *scripted) addr() string { return s.l.Addr().String() }

// accept takes the next connection.
func (s *scripted) accept() {
	s.t.Helper()
	_ = s.l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	conn, err := s.l.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	if s.conn != nil {
		s.conn.Close()
	}
	s.conn, s.in = conn, bufio.NewReader(conn)
}

func (s *scripted) say(format string, args ...any) {
	fmt.Fprintf(s.conn, format+"\r\n", args...)
}

// next is the next line of the client but its questions for life.
func (s *scripted) next() ircmsg.Message {
	s.t.Helper()
	for {
		_ = s.conn.SetReadDeadline(time.Now().Add(patience))
		line, err := s.in.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the client says no more: %v", err)
		}
		m, err := ircmsg.ParseLine(line)
		if err != nil {
			s.t.Fatalf("the client said %q: %v", line, err)
		}
		if m.Command != "PING" || !strings.Contains(line, "alive") {
			return m
		}
	}
}

// expect is next, which must be a command.
func (s *scripted) expect(command string) ircmsg.Message {
	s.t.Helper()
	m := s.next()
	if m.Command != command {
		s.t.Fatalf("the client said %v, want %s", m, command)
	}
	return m
}

// negotiate plays the registration up to the end of CAP REQ, and returns what
// was asked for.
func (s *scripted) negotiate() string {
	s.t.Helper()
	s.accept()
	s.expect("CAP")
	s.expect("NICK")
	s.expect("USER")
	first, rest, _ := strings.Cut(s.caps, " ")
	s.say(":srv CAP * LS * :%s", first)
	s.say(":srv CAP * LS :%s", rest)
	m := s.expect("CAP")
	if m.Params[0] == "END" {
		return ""
	}
	s.say(":srv CAP * ACK :%s", m.Params[1])
	return m.Params[1]
}

func (s *scripted) welcome() {
	s.t.Cleanup(func() { s.conn.Close() }) // before the adapter says goodbye and waits for that
	s.say(":srv 001 hermes :Welcome")
	s.say(":srv 005 hermes CHANTYPES=# CASEMAPPING=ascii STATUSMSG=@+ :are supported")
	s.say(":srv 422 hermes :no message")
}

// serve plays the whole registration without SASL.
func (s *scripted) serve() {
	s.t.Helper()
	if s.negotiate() != "" {
		s.expect("CAP")
	}
	s.welcome()
}

const modern = "message-tags account-tag server-time echo-message batch labeled-response sasl=PLAIN,EXTERNAL chghost"

func TestSASL(t *testing.T) {
	s := newScripted(t, modern)
	b := start(t, irc.Options{Server: s.addr(), SASLUser: "bot", SASLPassword: secret.New("tame-lion")})
	if asked := s.negotiate(); !strings.Contains(asked, "sasl") || !strings.Contains(asked, "labeled-response") {
		t.Errorf("asked for %q", asked)
	}
	if m := s.expect("AUTHENTICATE"); m.Params[0] != "PLAIN" {
		t.Errorf("the mechanism is %v", m.Params)
	}
	s.say("AUTHENTICATE +")
	got, err := base64.StdEncoding.DecodeString(s.expect("AUTHENTICATE").Params[0])
	if err != nil || string(got) != "bot\x00bot\x00tame-lion" {
		t.Errorf("the client logs in with %q, %v", got, err)
	}
	s.say(":srv 900 hermes hermes!u@h bot :You are now logged in")
	s.say(":srv 903 hermes :SASL authentication successful")
	if m := s.expect("CAP"); m.Params[0] != "END" {
		t.Errorf("after the login: %v", m)
	}
	s.welcome()
	b.awaitReport(t, "ready: ")
}

func TestSASLRefusedIsNotHammered(t *testing.T) {
	s := newScripted(t, "sasl")
	slow := brisk
	slow.Refused, slow.RefusedMax = time.Hour, time.Hour
	b := start(t, irc.Options{Server: s.addr(), SASLUser: "bot", SASLPassword: secret.New("tame-lion"), Timing: slow})
	s.negotiate()
	s.expect("AUTHENTICATE")
	s.say("AUTHENTICATE +")
	s.expect("AUTHENTICATE")
	s.say(":srv 904 hermes :bad password tame-lion") // a server that repeats it
	b.awaitReport(t, "degraded: ")
	last := b.told()[len(b.told())-1]
	if !strings.Contains(last, `refused the SASL login of "bot"`) || strings.Contains(last, "tame-lion") {
		t.Errorf("told %q", last)
	}
	_ = s.l.(*net.TCPListener).SetDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := s.l.Accept(); err == nil {
		t.Error("it came again at once")
	}
}

// Without SASL nobody vouches for us: that is no smaller step than a wrong
// password.
func TestNoSASLOfferedIsRefused(t *testing.T) {
	s := newScripted(t, "message-tags")
	b := start(t, irc.Options{Server: s.addr(), SASLUser: "bot", SASLPassword: secret.New("x")})
	s.negotiate()
	b.awaitReport(t, "degraded: "+s.addr()+" offers no SASL")
}

func TestNickServ(t *testing.T) {
	s := newScripted(t, "multi-prefix")
	b := start(t, irc.Options{
		Server: s.addr(), NickServPassword: secret.New("tame-lion"),
		SASLUser: "bot", SASLPassword: secret.New("x"), // not offered
	})
	s.serve()
	if m := s.expect("PRIVMSG"); m.Params[0] != "NickServ" || m.Params[1] != "IDENTIFY tame-lion" {
		t.Errorf("the client said %v", m)
	}
	s.say(":NickServ!s@services NOTICE hermes :Password tame-lion is \x02wrong\x02")
	b.awaitReport(t, "degraded: not identified; NickServ said: Password <redacted> is wrong")
	s.say(":NickServ MODE hermes :+r")
	b.awaitReport(t, "ready: ")
}

func TestBanIsShown(t *testing.T) {
	s := newScripted(t, "")
	slow := brisk
	slow.Refused, slow.RefusedMax = time.Hour, time.Hour
	b := start(t, irc.Options{Server: s.addr(), Timing: slow})
	s.accept()
	s.say("ERROR :Closing Link: 127.0.0.1 (K-Lined: no bots)")
	s.conn.Close()
	b.awaitReport(t, "degraded: "+s.addr()+" refused us: Closing Link: 127.0.0.1 (K-Lined: no bots)")
}

func TestKillIsShown(t *testing.T) {
	s := newScripted(t, "")
	b := start(t, irc.Options{Server: s.addr()})
	s.serve()
	b.awaitReport(t, "ready: ")
	n := len(b.told())
	s.say("ERROR :Closing Link: (Killed (oper (spam)))")
	s.conn.Close()
	b.awaitReportAfter(t, n, "ended the connection: Closing Link: (Killed (oper (spam)))")
}

// modernBot is an adapter on a server with all extensions.
func modernBot(t *testing.T, caps string, o irc.Options) (*scripted, *bot) {
	t.Helper()
	s := newScripted(t, caps)
	o.Server = s.addr()
	b := start(t, o)
	s.serve()
	b.awaitReport(t, "ready: ")
	return s, b
}

func TestWhatTheServerVouchesFor(t *testing.T) {
	s, b := modernBot(t, modern, irc.Options{})
	s.say("@account=Ann;msgid=abc;time=2026-01-02T03:04:05.678Z :ann!~a@host PRIVMSG hermes :one")
	s.say("@msgid=def :ann!~a@host PRIVMSG hermes :two")
	s.say("@account=;msgid=ghi :ann!~a@host PRIVMSG hermes :three")
	s.say(":caf\xe9!~a@host PRIVMSG hermes :four")
	s.say(":caf\xe8!~a@host PRIVMSG hermes :five")
	s.say("@bot :machine!~a@host PRIVMSG hermes :never")
	s.say(":srv PRIVMSG hermes :never")
	s.say(":ann!~a@host PRIVMSG $* :never")
	s.say(":ann!~a@host PRIVMSG @#ops :hermes: six")
	m := b.awaitTexts(t, "one", "two", "three", "four", "five", "six")
	if m[0].Sender.ID != "account:Ann" || m[0].ID != "msgid:abc" || !m[0].At.Equal(time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)) {
		t.Errorf("with an account: %+v", m[0])
	}
	if m[1].Sender.ID != "ann!~a@host" || m[1].ID != "msgid:def" || !m[1].At.IsZero() || m[2].Sender.ID != "ann!~a@host" {
		t.Errorf("without an account: %+v, %+v", m[1], m[2])
	}
	if m[3].Sender.ID == m[4].Sender.ID || m[3].Chat == m[4].Chat || m[3].ID == m[4].ID {
		t.Errorf("two people are one: %+v, %+v", m[3], m[4])
	}
	if m[5].Chat != "@#ops" {
		t.Errorf("said to the operators of a channel: %+v", m[5])
	}
}

// Tags that were not agreed on may come from anybody.
func TestTagsNotAgreedOnAreNotBelieved(t *testing.T) {
	s, b := modernBot(t, "multi-prefix", irc.Options{})
	s.say("@account=Ann;msgid=abc;time=2026-01-02T03:04:05Z :ann!~a@host PRIVMSG hermes :one")
	if m := b.awaitTexts(t, "one")[0]; m.Sender.ID != "ann!~a@host" || strings.Contains(m.ID, "abc") || !m.At.IsZero() {
		t.Errorf("%+v", m)
	}
}

// sent is what became of a Send that goes on beside the script.
type sent struct {
	receipt platform.Receipt
	err     error
}

func sending(t *testing.T, b *bot, chat, text string) <-chan sent {
	t.Helper()
	done := make(chan sent, 1)
	go func() {
		r, err := b.trySay(t, chat, text)
		done <- sent{r, err}
	}()
	return done
}

func (s *scripted) outcome(done <-chan sent) sent {
	s.t.Helper()
	select {
	case r := <-done:
		return r
	case <-time.After(patience):
		s.t.Fatal("Send does not end")
		return sent{}
	}
}

func label(m ircmsg.Message) string {
	_, l := m.GetTag("label")
	return l
}

func TestLabelsConfirm(t *testing.T) {
	s, b := modernBot(t, modern, irc.Options{})
	done := sending(t, b, "ann", "one\ntwo\nthree")
	one, two, three := s.expect("PRIVMSG"), s.expect("PRIVMSG"), s.expect("PRIVMSG")
	fence := s.expect("PING")
	if label(one) == "" || label(one) == label(two) || label(two) == label(three) {
		t.Errorf("labels of %v, %v, %v", one, two, three)
	}
	s.say(":srv PONG srv %s", fence.Params[0]) // a bouncer's own
	s.say("@label=%s;msgid=m1 :hermes!~h@host PRIVMSG ann :one", label(one))
	s.say("@label=%s :srv BATCH +7 labeled-response", label(two))
	s.say("@batch=7;msgid=m2 :hermes!~h@host PRIVMSG ann :two")
	s.say("@batch=7 :srv 301 hermes ann :away")
	s.say(":srv BATCH -7")
	select {
	case r := <-done:
		t.Fatalf("confirmed before the last line was: %v", r.err)
	default:
	}
	s.say("@label=%s :srv ACK", label(three))
	if r := s.outcome(done); r.err != nil || r.receipt.ID != "msgid:m1" {
		t.Errorf("Send returned %+v, %v", r.receipt, r.err)
	}
	if len(b.messages()) > 0 {
		t.Errorf("heard itself: %+v", b.messages())
	}
}

func TestLabelsRefuse(t *testing.T) {
	s, b := modernBot(t, modern, irc.Options{})
	done := sending(t, b, "ann", "one\ntwo")
	one, two := s.expect("PRIVMSG"), s.expect("PRIVMSG")
	fence := s.expect("PING")
	s.say("@label=%s :hermes!~h@host PRIVMSG ann :one", label(one))
	s.say("@label=%s :srv 401 hermes ann :No such nick", label(two))
	s.say(":srv PONG srv %s", fence.Params[0])
	if r := s.outcome(done); platform.FateOf(r.err) != platform.Unknown { // one line of it was said
		t.Errorf("Send returned %+v, %v", r.receipt, r.err)
	}
	done = sending(t, b, "ann", "three")
	m := s.expect("PRIVMSG")
	fence = s.expect("PING")
	s.say("@label=%s :srv 401 hermes ann :late, about an older one", label(one))
	s.say("@label=%s :srv FAIL PRIVMSG RATE_LIMITED ann :slow down", label(m))
	s.say(":srv PONG srv %s", fence.Params[0])
	r := s.outcome(done)
	var e *platform.SendError
	if !errors.As(r.err, &e) || e.Fate != platform.Retry || e.After == 0 || !e.Account {
		t.Errorf("Send returned %+v, %v", r.receipt, r.err)
	}
}

func TestEchoConfirms(t *testing.T) {
	s, b := modernBot(t, "message-tags echo-message", irc.Options{})
	done := sending(t, b, "Ann", "one\ntwo")
	s.expect("PRIVMSG")
	s.expect("PRIVMSG")
	fence := s.expect("PING")
	s.say("@msgid=m1 :hermes!~h@host PRIVMSG ann :one")
	s.say(":hermes!~h@host PRIVMSG bob :from another client of ours")
	s.say(":srv PONG srv %s", fence.Params[0])
	select {
	case r := <-done:
		t.Fatalf("confirmed before the last line was: %v", r.err)
	default:
	}
	s.say("@msgid=m2 :hermes!~h@host PRIVMSG ann :two")
	if r := s.outcome(done); r.err != nil || r.receipt.ID != "msgid:m1" {
		t.Errorf("Send returned %+v, %v", r.receipt, r.err)
	}
}

func TestFenceConfirms(t *testing.T) {
	s, b := modernBot(t, "multi-prefix", irc.Options{})
	done := sending(t, b, "ann", "one")
	s.expect("PRIVMSG")
	fence := s.expect("PING")
	s.say(":srv PONG srv hermes-of-old")
	s.say(":srv PONG srv %s", fence.Params[0])
	if r := s.outcome(done); r.err != nil {
		t.Errorf("Send returned %+v, %v", r.receipt, r.err)
	}
	done = sending(t, b, "ann", "two")
	s.expect("PRIVMSG")
	s.expect("PING")
	s.conn.Close() // before it is confirmed
	if r := s.outcome(done); platform.FateOf(r.err) != platform.Unknown {
		t.Errorf("Send returned %+v, %v", r.receipt, r.err)
	}
}

// A server that kills those who send more than it reads.
func TestFloodLimitIsKept(t *testing.T) {
	pace := brisk
	pace.Line, pace.Burst = 40*time.Millisecond, 3
	s, b := modernBot(t, "multi-prefix", irc.Options{Timing: pace})
	done := sending(t, b, "ann", "1\n2\n3\n4\n5\n6\n7\n8")
	began := time.Now()
	for i := range 8 {
		s.expect("PRIVMSG")
		if least := time.Duration(i-pace.Burst) * pace.Line; time.Since(began) < least {
			t.Errorf("line %d came after %s, want at least %s", i+1, time.Since(began), least)
		}
	}
	fence := s.expect("PING")
	s.say(":srv PONG srv %s", fence.Params[0])
	if r := s.outcome(done); r.err != nil {
		t.Errorf("Send returned %+v, %v", r.receipt, r.err)
	}
}

func TestLostBeforeTheFirstLineIsRetried(t *testing.T) {
	pace := brisk
	pace.Line, pace.Burst = time.Hour, 1
	s, b := modernBot(t, "multi-prefix", irc.Options{Timing: pace})
	done := sending(t, b, "ann", "one")
	s.expect("PRIVMSG")
	fence := s.expect("PING")
	s.say(":srv PONG srv %s", fence.Params[0])
	if r := s.outcome(done); r.err != nil {
		t.Errorf("Send returned %+v, %v", r.receipt, r.err)
	}
	done = sending(t, b, "ann", "two") // has to wait for an hour
	s.conn.Close()
	if r := s.outcome(done); platform.FateOf(r.err) != platform.Retry {
		t.Errorf("Send returned %+v, %v", r.receipt, r.err)
	}
}

func TestNicksThatAreTakenToo(t *testing.T) {
	s := newScripted(t, "")
	b := start(t, irc.Options{Server: s.addr(), Nick: "hermes-of-troy"})
	s.accept()
	s.expect("CAP")
	s.expect("NICK")
	s.expect("USER")
	for _, next := range []string{"hermes-of-troy_", "hermes-of-troy__", "hermes-o1", "hermes-o2"} {
		s.say(":srv 433 * x :taken")
		if m := s.expect("NICK"); m.Params[0] != next {
			t.Errorf("tries %v, want %s", m.Params, next)
		}
	}
	s.say(":srv 001 hermes-o2 :Welcome")
	s.say(":srv 422 hermes-o2 :no message")
	t.Cleanup(func() { s.conn.Close() })
	b.awaitReport(t, "ready: as hermes-o2: the nick hermes-of-troy is taken")
}
