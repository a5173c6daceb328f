package irc

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/supervise"
)

// wire takes what is written to it and looks whether it is lines of IRC.
type wire struct {
	net.Conn
	t *testing.T
}

func (w wire) SetWriteDeadline(time.Time) error { return nil }

func (w wire) Write(b []byte) (int, error) {
	line, ok := strings.CutSuffix(string(b), "\r\n")
	if !ok || line == "" || strings.ContainsAny(line, "\r\n\x00") || len(b) > maxLine+maxTags {
		w.t.Errorf("wrote %q", b)
	}
	return len(b), nil
}

type nobody struct{ t *testing.T }

func (nobody) Accept(context.Context, platform.Inbound) error { return nil }
func (nobody) Cursor(context.Context, string) (string, error) { return "", nil }
func (n nobody) Report(_ supervise.State, reason string) {
	if !utf8.ValidString(reason) || strings.ContainsAny(reason, "\n\x1b") {
		n.t.Errorf("reported %q", reason)
	}
}

// stuck is a connection that takes nothing.
type stuck struct {
	net.Conn
	readBy time.Time
}

func (*stuck) SetWriteDeadline(time.Time) error { return nil }
func (*stuck) Write([]byte) (int, error)        { return 0, errors.New("broken pipe") }

func (s *stuck) SetReadDeadline(at time.Time) error {
	s.readBy = at
	return nil
}

// The error of a write was once shadowed: nothing came of it.
func TestFailedWriteEndsTheReading(t *testing.T) {
	a, err := New(Options{Server: "localhost:1", Nick: "hermes"})
	if err != nil {
		t.Fatal(err)
	}
	conn := &stuck{}
	newSession(a, nobody{t}, conn, nil).send("PING", "x")
	if conn.readBy.IsZero() {
		t.Error("a failed write changes nothing")
	}
}

// Whatever a server says, in whatever order, is borne.
func FuzzServer(f *testing.F) {
	f.Add("CAP * LS :sasl=PLAIN echo-message batch labeled-response message-tags account-tag\nCAP * ACK :sasl\nAUTHENTICATE +\n:s 903 hermes :ok")
	f.Add(":s 001 hermes :hi\n:s 005 hermes CHANTYPES= STATUSMSG=\n:s 422\n:hermes!u@h JOIN #ops\n:ann!u@h PRIVMSG #ops :hermes: x\n:x KICK #ops hermes")
	f.Add("CAP * ACK :labeled-response batch\n@label=1 BATCH +a x\n@batch=a :hermes PRIVMSG ann :x\nBATCH -a\nBATCH -a\nPONG s hermes-1")
	f.Add("PING\nPONG\nPRIVMSG\nNICK\nQUIT\nJOIN\nPART\nKICK\nINVITE\nMODE\nCHGHOST\nERROR\nCAP\nFAIL\n433\n401\n404 a ann\n900\n:hermes NICK")
	f.Fuzz(func(t *testing.T, script string) {
		a, err := New(Options{Server: "localhost:1", Nick: "hermes", Channels: []string{"#ops key"}})
		if err != nil {
			t.Fatal(err)
		}
		inbox := make(chan platform.Inbound, 1)
		s := newSession(a, nobody{t}, wire{t: t}, inbox)
		s.hello()
		for line := range strings.SplitSeq(script, "\n") {
			if m, err := ircmsg.ParseLine(line); err == nil {
				s.handle(m)
			}
			if s.ready && s.current == nil {
				s.start(&delivery{ctx: t.Context(), chat: "ann", text: "one\ntwo", done: make(chan struct{})})
			}
			s.act(time.Now())
			for s.pending != nil || len(inbox) > 0 {
				if s.pending != nil {
					<-inbox
					inbox <- *s.pending
					s.pending = nil
				}
				m := <-inbox
				if m.ID == "" || m.Chat == "" || m.Sender.ID == "" || !utf8.ValidString(m.ID+m.Chat+m.Sender.ID+m.Sender.Name+m.Text) {
					t.Errorf("%q makes %+v", line, m)
				}
			}
		}
	})
}
