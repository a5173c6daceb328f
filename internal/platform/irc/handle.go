package irc

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/hermesgw/hermes/internal/platform"
)

// maxEcho bounds what a CTCP PING is answered with, in bytes; clients send a time.
const maxEcho = 64

func (s *session) fold(name string) string { return fold(s.casemapping, name) }

// ours says whether m was caused by ourselves.
func (s *session) ours(m ircmsg.Message) bool { return s.fold(m.Nick()) == s.fold(s.nick) }

// last is the last parameter of m, where servers put what humans may read.
func (s *session) last(m ircmsg.Message) string {
	if len(m.Params) == 0 {
		return ""
	}
	return s.show(m.Params[len(m.Params)-1])
}

// handle takes one line of the server.
func (s *session) handle(m ircmsg.Message) {
	line, last := s.labelled(m)
	switch m.Command {
	case "PING":
		s.send("PONG", m.Params...)
	case "PONG":
		if n := len(m.Params); n > 0 {
			s.pong(m.Params[n-1])
		}
	case "PRIVMSG":
		s.message(m, line)
	case "NOTICE":
		s.notice(m)
	case "NICK":
		s.renamed(m)
	case "QUIT":
		if s.fold(m.Nick()) == s.fold(s.options.Nick) && !s.ours(m) {
			s.regainSoon()
		}
	case "JOIN":
		s.joined(m)
	case "PART":
		s.left(m)
	case "KICK":
		s.kicked(m)
	case "INVITE":
		s.invited(m)
	case "MODE":
		s.mode(m)
	case "CHGHOST":
		if len(m.Params) > 1 && s.ours(m) {
			s.source = len("!@") + len(m.Params[0]) + len(m.Params[1])
		}
	case "ERROR":
		s.lastError = s.last(m)
	case "CAP":
		s.capability(m)
	case "AUTHENTICATE":
		s.authenticate(m)
	case "FAIL":
		if len(m.Params) > 0 && (line != nil || m.Params[0] == "PRIVMSG") {
			s.refuse(m, line)
		}
	default:
		s.numeric(m, line)
	}
	if last {
		s.answered(line)
	}
}

// answered ends the waiting for a labelled line: all that the server says to it
// was said.
func (s *session) answered(line *sentLine) {
	if s.current != nil && !line.settled {
		line.settled = true
		s.conclude(s.current)
	}
}

// numeric takes the answers that are numbers (modern.ircdocs.horse, Numerics).
func (s *session) numeric(m ircmsg.Message, line *sentLine) {
	switch m.Command {
	case "001":
		s.welcome(m)
	case "005":
		s.isupport(m)
	case "376", "422": // the end of the message of the day, or none
		s.greeted()
	case "396": // RPL_HOSTHIDDEN: how long is told by nothing but the next JOIN
		s.source = 0
	case "900": // RPL_LOGGEDIN
		s.identified()
	case "902", "903", "904", "905", "906", "907", "908":
		s.saslAnswer(m)
	case "432", "433", "436", "437":
		if s.registered && m.Command == "437" {
			s.joinRefused(m)
		}
		s.nickTaken(m)
	case "464", "465": // ERR_PASSWDMISMATCH, ERR_YOUREBANNEDCREEP
		if !s.registered {
			s.end = &refusal{fmt.Sprintf("%s refused us: %s (%s)", s.options.Server, s.last(m), m.Command)}
		}
	case "263", "401", "403", "404", "405", "407", "439", "470", "471", "473", "474", "475", "476", "477", "480", "486", "489", "520", "531", "716":
		s.numericNo(m, line)
	}
}

// numericNo takes a no to a message or to a JOIN.
func (s *session) numericNo(m ircmsg.Message, line *sentLine) {
	d := s.current
	about := len(m.Params) > 1 && d != nil &&
		(s.fold(m.Params[1]) == s.fold(d.chat) || m.Command == "263" && m.Params[1] == "PRIVMSG")
	switch {
	case line != nil || about && len(d.sent) > 0:
		s.refuse(m, line)
	case len(m.Params) > 1 && s.fold(m.Params[1]) == s.fold(nickServ):
		s.notIdentified(s.last(m))
	default:
		s.joinRefused(m)
	}
}

// renamed follows our nick, and grasps the one wished for when it is given up.
func (s *session) renamed(m ircmsg.Message) {
	switch {
	case len(m.Params) == 0:
	case s.ours(m):
		s.nick = m.Params[0]
		s.due.regain = time.Time{}
		if s.fold(s.nick) != s.fold(s.options.Nick) {
			s.due.regain = time.Now().Add(s.options.Timing.Regain)
		} else {
			s.identify()
		}
		s.report()
	case s.fold(m.Nick()) == s.fold(s.options.Nick):
		s.regainSoon()
	}
}

func (s *session) regainSoon() {
	if !s.due.regain.IsZero() {
		s.due.regain = time.Now()
	}
}

// mode notes the user mode r, or R on ngIRCd: services know us.
func (s *session) mode(m ircmsg.Message) {
	if len(m.Params) > 1 && s.fold(m.Params[0]) == s.fold(s.nick) {
		if added, _, _ := strings.Cut(m.Params[1], "-"); strings.ContainsAny(added, "rR") {
			s.identified()
		}
	}
}

// notice is never answered, so that two programs cannot talk for ever
// (RFC 2812, 3.3.2). What NickServ says goes to the operator.
func (s *session) notice(m ircmsg.Message) {
	if s.fold(m.Nick()) == s.fold(nickServ) {
		s.notIdentified(s.last(m))
	}
}

// notIdentified keeps what is said while NickServ has not agreed.
func (s *session) notIdentified(text string) {
	if s.nickserv == identityAsked {
		s.nickSaid = text
		s.report()
	}
}

// message is a PRIVMSG: of ourselves, to us, or to a channel.
func (s *session) message(m ircmsg.Message, line *sentLine) {
	if len(m.Params) < 2 {
		return
	}
	if s.ours(m) {
		if s.caps["echo-message"] {
			s.seen(m.Source)
			s.echo(m, line)
		}
		return
	}
	if m.HasTag("bot") || strings.Index(m.Source, "!") < 1 {
		return // a program that says so; a server
	}
	if in, ok := s.inbound(m); ok {
		s.hand(in)
	}
}

// inbound makes of a PRIVMSG what the gateway wants to know; ok is false for
// what is not meant for us.
func (s *session) inbound(m ircmsg.Message) (in platform.Inbound, ok bool) {
	target, text := m.Params[0], m.Params[1]
	direct := s.fold(target) == s.fold(s.nick)
	if command, rest, isCTCP := ctcp(text); isCTCP {
		if !direct {
			return in, false
		}
		if command != "ACTION" {
			s.answerCTCP(m.Nick(), command, rest)
			return in, false
		}
		text = rest // what they do is what they say
	}
	text = plain(text)
	if !direct {
		if !s.isChannel(target) {
			return in, false // to $*, or to a nick that we had
		}
		if text, ok = addressed(s.casemapping, s.nick, text); !ok {
			return in, false
		}
	}
	in = platform.Inbound{
		Account: s.Account(), ID: s.messageID(m), Chat: s.fold(target), Direct: direct,
		Sender: s.sender(m), Text: text, At: s.sentAt(m),
	}
	if direct {
		in.Chat = s.fold(m.Nick())
	}
	in.Chat = distinct(in.Chat)
	if in.ID == "" {
		s.messages++
		in.ID = "local:" + s.Adapter.run + "-" + strconv.FormatUint(s.messages, 10)
	}
	return in, true
}

// isChannel says whether target is a channel, or those in one with a certain
// status ("@#ops"), whose answers go to the same few.
func (s *session) isChannel(target string) bool {
	name := strings.TrimLeft(target, s.statusTypes)
	return name != "" && strings.Contains(s.chanTypes, name[:1])
}

// sender is the account that the server vouches for. Without one it is
// nick!user@host, as the server shows it: as good as the host name in it, since
// anybody from the same host can take the rest.
func (s *session) sender(m ircmsg.Message) platform.Sender {
	who := platform.Sender{ID: distinct(m.Source), Name: plain(m.Nick())}
	if ok, account := m.GetTag("account"); ok && account != "" && s.caps["account-tag"] {
		who.ID = "account:" + distinct(account)
	}
	return who
}

// distinct makes valid UTF-8 of name so that two names stay two: no name begins
// with a quote.
func distinct(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return strconv.QuoteToASCII(name)
}

// messageID is the network's id of m, empty where it gives none.
func (s *session) messageID(m ircmsg.Message) string {
	if ok, id := m.GetTag("msgid"); ok && id != "" && s.caps["message-tags"] {
		return "msgid:" + id
	}
	return ""
}

func (s *session) sentAt(m ircmsg.Message) time.Time {
	ok, text := m.GetTag("time")
	if !ok || !s.caps["server-time"] {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}
	}
	return at
}

// hand gives a message to the gateway, or keeps it and reads no further.
func (s *session) hand(in platform.Inbound) {
	select {
	case s.inbox <- in:
	default:
		s.pending = &in
	}
}

// answerCTCP answers what clients ask each other, by NOTICE, while lines are to
// spare.
func (s *session) answerCTCP(nick, command, rest string) {
	now := time.Now()
	answer := ""
	switch command {
	case "VERSION":
		answer = "VERSION Hermes"
	case "PING":
		answer = "PING " + strip(rest[:min(len(rest), maxEcho)])
	}
	if answer == "" || !word(nick) || now.Before(s.bucket.ready()) {
		return
	}
	s.bucket.take(now)
	s.send("NOTICE", nick, "\x01"+answer+"\x01")
}
