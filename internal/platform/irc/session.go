package irc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
	"github.com/ergochat/irc-go/ircreader"

	"github.com/hermesgw/hermes/internal/platform"
)

const (
	// maxTags is what a server may put before a line (IRCv3 message tags), in bytes.
	maxTags = 8191
	// writing is how long a write may take: the system takes a few lines at once
	// unless the server has not read for long.
	writing = 10 * time.Second
	// misses is how many questions for life may stay without an answer.
	misses = 2
)

// session is one connection. All of it but what Send uses belongs to one
// goroutine, its loop; a second one reads lines.
type session struct {
	*Adapter
	host  platform.Host
	conn  net.Conn
	inbox chan<- platform.Inbound
	began time.Time

	lines   chan ircmsg.Message // closed after readErr is set
	readErr error

	sends chan *delivery // what Send hands over
	ended chan struct{}  // closed when nobody takes deliveries any more

	// What the server told about itself and us.
	nick        string
	source      int // bytes of our nick!user@host as others see it, without the nick; 0: unknown
	offered     map[string]string
	caps        map[string]bool
	casemapping string
	chanTypes   string
	statusTypes string
	botMode     string

	registered bool // 001 came
	ready      bool // so did the end of the greeting
	attempt    int  // of nicks
	sasl       saslState
	nickserv   identity
	nickSaid   string // the last notice of NickServ
	channels   map[string]*channel
	order      []string // of channels, folded
	lastError  string   // the text of ERROR

	pending *platform.Inbound // what the gateway's backlog has no room for
	current *delivery
	labels  map[string]*sentLine // lines of current by label
	batches map[string]*sentLine // the same by open batch
	fences  uint64

	heard bool // since the last tick
	quiet int  // questions without an answer

	due struct{ tick, regain, stop time.Time }
	end error // why the loop ends
}

func newSession(a *Adapter, host platform.Host, conn net.Conn, inbox chan<- platform.Inbound) *session {
	return &session{
		Adapter: a, host: host, conn: conn, inbox: inbox, began: time.Now(),
		lines: make(chan ircmsg.Message), sends: make(chan *delivery), ended: make(chan struct{}),
		offered: map[string]string{}, caps: map[string]bool{}, chanTypes: "#&",
		labels: map[string]*sentLine{}, batches: map[string]*sentLine{},
	}
}

// connect makes one connection and serves it until it ends, and says why.
func (a *Adapter) connect(ctx context.Context, host platform.Host, inbox chan<- platform.Inbound) error {
	conn, err := a.dial(ctx)
	if err != nil {
		return fmt.Errorf("cannot connect to %s: %w", a.options.Server, err)
	}
	s := newSession(a, host, conn, inbox)
	stop := make(chan struct{})
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		s.read(stop)
	}()
	err = s.loop(ctx)
	a.session.CompareAndSwap(s, nil)
	close(s.ended)
	close(stop)
	conn.Close()
	<-reading
	s.flush()
	return err
}

// read passes lines on until the connection ends or stop is closed. It reads no
// further while the loop takes nothing: then the server is held back.
func (s *session) read(stop <-chan struct{}) {
	defer close(s.lines)
	var reader ircreader.Reader
	reader.Initialize(s.conn, 1024, maxTags+2*maxLine)
	for {
		line, err := reader.ReadLine()
		if err != nil {
			s.readErr = err
			return
		}
		m, err := ircmsg.ParseLine(string(line))
		if err != nil {
			continue // a line that means nothing to us
		}
		select {
		case s.lines <- m:
		case <-stop:
			return
		}
	}
}

// loop speaks with the server until the connection ends, or until ctx does and
// goodbye is said.
func (s *session) loop(ctx context.Context) error {
	s.hello()
	s.due.tick = s.began.Add(s.options.Timing.Ping)
	timer := time.NewTimer(0)
	defer timer.Stop()
	done := ctx.Done()
	for s.end == nil {
		timer.Reset(time.Until(s.next()))
		lines, inbox, pending := s.lines, chan<- platform.Inbound(nil), platform.Inbound{}
		if s.pending != nil {
			lines, inbox, pending = nil, s.inbox, *s.pending
		}
		select {
		case m, ok := <-lines:
			if !ok {
				s.end = s.lost()
				break
			}
			s.heard = true
			s.handle(m)
		case inbox <- pending:
			s.unblock()
		case d := <-s.taking():
			s.start(d)
		case <-s.abandoned():
			s.finish(s.current.interrupted(context.Cause(s.current.ctx)))
		case <-timer.C:
			s.act(time.Now())
		case <-done:
			done = nil
			s.due.stop = time.Now().Add(s.options.Timing.Goodbye)
		}
		if done == nil && s.current == nil && s.end == nil {
			s.end = s.goodbye()
		}
	}
	if s.current != nil {
		s.finish(s.current.interrupted(s.end))
	}
	return s.end
}

// taking is the channel of deliveries while one can be begun.
func (s *session) taking() <-chan *delivery {
	if !s.ready || s.current != nil || !s.due.stop.IsZero() {
		return nil
	}
	return s.sends
}

func (s *session) abandoned() <-chan struct{} {
	if s.current == nil {
		return nil
	}
	return s.current.ctx.Done()
}

// unblock goes on reading: what time has passed says nothing about the server.
func (s *session) unblock() {
	s.pending, s.heard = nil, true
	if s.current != nil && !s.current.confirmBy.IsZero() {
		s.current.confirmBy = time.Now().Add(s.options.Timing.Confirm)
	}
}

// next is when act has something to do.
func (s *session) next() time.Time {
	first := s.due.tick
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	sooner(s.due.regain)
	sooner(s.due.stop)
	if !s.registered {
		sooner(s.began.Add(s.options.Timing.Connect))
	}
	if c := s.nextJoin(); c != nil {
		sooner(later(c.next, s.bucket.ready()))
	}
	if d := s.current; d != nil {
		if len(d.lines) > 0 {
			sooner(s.bucket.ready())
		} else if s.pending == nil {
			sooner(d.confirmBy)
		}
	}
	return first
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// act does what is due.
func (s *session) act(now time.Time) {
	passed := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	switch {
	case passed(s.due.stop):
		s.end = s.goodbye()
		return
	case !s.registered && passed(s.began.Add(s.options.Timing.Connect)):
		s.end = fmt.Errorf("cannot register with %s: no welcome within %s", s.options.Server, s.options.Timing.Connect)
		return
	case passed(s.due.tick):
		s.tick(now)
	}
	if passed(s.due.regain) {
		s.due.regain = now.Add(s.options.Timing.Regain)
		s.send("NICK", s.options.Nick)
	}
	if c := s.nextJoin(); c != nil && passed(c.next) && passed(s.bucket.ready()) {
		s.join(c, now)
	}
	if d := s.current; d != nil {
		switch {
		case len(d.lines) > 0 && passed(s.bucket.ready()):
			s.sendLine(d, now)
		case len(d.lines) == 0 && s.pending == nil && passed(d.confirmBy):
			s.finish(unknown(errors.New("the server did not confirm it in time")))
		}
	}
}

// tick asks a silent server whether it lives. Servers that hold the connection
// but forward nothing are found by nothing else.
func (s *session) tick(now time.Time) {
	s.due.tick = now.Add(s.options.Timing.Ping)
	if s.heard || s.pending != nil {
		s.heard, s.quiet = false, 0
		return
	}
	if s.quiet == misses {
		s.end = fmt.Errorf("%s is silent: no answer to %d pings, %s apart", s.options.Server, misses, s.options.Timing.Ping)
		return
	}
	s.quiet++
	s.send("PING", "hermes-alive")
}

// lost says why nothing more comes from the server.
func (s *session) lost() error {
	switch {
	case s.lastError != "" && !s.registered:
		return &refusal{fmt.Sprintf("%s refused us: %s", s.options.Server, s.lastError)}
	case s.lastError != "":
		return fmt.Errorf("%s ended the connection: %s", s.options.Server, s.lastError)
	case errors.Is(s.readErr, io.EOF):
		return fmt.Errorf("%s closed the connection", s.options.Server)
	default:
		return fmt.Errorf("the connection to %s broke: %w", s.options.Server, s.readErr)
	}
}

var errGoodbye = errors.New("the gateway is stopping")

// goodbye quits and waits a moment for the server to close, so that it shows
// our reason and not a broken connection.
func (s *session) goodbye() error {
	s.session.CompareAndSwap(s, nil)
	s.send("QUIT", "Hermes is going away")
	_ = s.conn.SetReadDeadline(time.Now().Add(s.options.Timing.Goodbye))
	s.flush()
	for m := range s.lines {
		s.handle(m)
		s.flush()
	}
	return errGoodbye
}

// flush hands over what waits. The gateway takes it, or it is known to be lost.
func (s *session) flush() {
	if s.pending != nil {
		s.inbox <- *s.pending
		s.pending = nil
	}
}

// send writes a line that is no message to people, at once.
func (s *session) send(command string, params ...string) {
	s.write(ircmsg.MakeMessage(nil, "", command, params...))
}

// write puts one line on the wire. One that cannot be said is left out; where
// the connection takes none, what is left is to read its last words.
func (s *session) write(m ircmsg.Message) {
	line, err := m.LineBytesStrict(true, maxLine)
	if err != nil {
		s.log.Warn("irc line left out", "command", m.Command, "cause", err)
		return
	}
	err = s.conn.SetWriteDeadline(time.Now().Add(writing))
	if err == nil {
		_, err = s.conn.Write(line)
	}
	if err != nil {
		// Why the server closed may be there to be read.
		_ = s.conn.SetReadDeadline(time.Now().Add(s.options.Timing.Goodbye))
	}
}
