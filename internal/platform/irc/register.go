package irc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ergochat/irc-go/ircmsg"
	"github.com/ergochat/irc-go/ircutils"
)

// wanted are the extensions that are asked for where a server offers them
// (ircv3.net/irc). Who somebody is comes with each message, from account-tag;
// what extended-join tells would have to be kept up to date by guessing.
var wanted = [...]string{
	"account-tag", "batch", "chghost", "echo-message", "labeled-response", "message-tags", "server-time",
}

// saslState is how far the login has come.
type saslState int

const (
	saslNone saslState = iota
	saslAsked
	saslDone
)

// nickServ is the service that knows whose nick is whose.
const nickServ = "NickServ"

// identity is what NickServ thinks of us.
type identity int

const (
	identityNone   identity = iota // it was not asked
	identityAsked                  // it was, and has not agreed
	identityAgreed                 // the server says that we are who we claim
)

// hello begins the registration (RFC 2812, 3.1; IRCv3 capability negotiation).
func (s *session) hello() {
	s.nick = s.options.Nick
	s.send("CAP", "LS", "302")
	if s.options.ServerPassword.IsSet() {
		s.send("PASS", s.options.ServerPassword.Reveal())
	}
	s.send("NICK", s.nick)
	s.send("USER", s.options.User, "0", "*", s.options.RealName)
}

// capability takes one CAP line: * LS [*] :list, * ACK :list and so on.
func (s *session) capability(m ircmsg.Message) {
	if len(m.Params) < 3 {
		return
	}
	list := strings.Fields(m.Params[len(m.Params)-1])
	switch strings.ToUpper(m.Params[1]) {
	case "LS":
		for _, c := range list {
			name, value, _ := strings.Cut(c, "=")
			s.offered[name] = value
		}
		if len(m.Params) == 3 { // a * stands before the list while more follow
			s.request()
		}
	case "ACK":
		for _, c := range list {
			s.caps[c] = true
		}
		s.login()
	case "NAK":
		s.login()
	case "DEL":
		for _, c := range list {
			delete(s.caps, c)
		}
	}
}

// request asks for what is both wanted and offered.
func (s *session) request() {
	if s.registered {
		return
	}
	var list []string
	for _, c := range wanted {
		if _, ok := s.offered[c]; ok && (c != "labeled-response" || s.offers("batch")) {
			list = append(list, c)
		}
	}
	if s.options.SASLPassword.IsSet() && s.offers("sasl") {
		list = append(list, "sasl")
	}
	if len(list) == 0 {
		s.login()
		return
	}
	s.send("CAP", "REQ", strings.Join(list, " "))
}

func (s *session) offers(name string) bool {
	_, ok := s.offered[name]
	return ok
}

// login begins SASL where it was agreed on, and ends the negotiation otherwise.
func (s *session) login() {
	if s.registered {
		return
	}
	if !s.caps["sasl"] {
		if s.noSASL() {
			s.send("CAP", "END")
		}
		return
	}
	mechanisms := s.offered["sasl"]
	if mechanisms != "" && !slices.Contains(strings.Split(mechanisms, ","), "PLAIN") {
		s.end = &refusal{fmt.Sprintf("%s has no SASL PLAIN, only %s", s.options.Server, s.show(mechanisms))}
		return
	}
	s.sasl = saslAsked
	s.send("AUTHENTICATE", "PLAIN")
}

// noSASL says whether we may go on without SASL. Being nobody where an account
// is expected is no way on.
func (s *session) noSASL() bool {
	if s.options.SASLPassword.IsSet() && !s.options.NickServPassword.IsSet() {
		s.end = &refusal{s.options.Server + " offers no SASL; set the NickServ password, or take the SASL password away"}
		return false
	}
	return true
}

// authenticate answers the server's AUTHENTICATE + (RFC 4616 for PLAIN).
func (s *session) authenticate(m ircmsg.Message) {
	if s.sasl != saslAsked || len(m.Params) == 0 || m.Params[0] != "+" {
		return
	}
	plain := s.options.SASLUser + "\x00" + s.options.SASLUser + "\x00" + s.options.SASLPassword.Reveal()
	for _, part := range ircutils.EncodeSASLResponse([]byte(plain)) {
		s.send("AUTHENTICATE", part)
	}
}

// saslAnswer takes the numerics that end SASL.
func (s *session) saslAnswer(m ircmsg.Message) {
	if s.sasl != saslAsked {
		return
	}
	if m.Command == "903" { // RPL_SASLSUCCESS
		s.sasl = saslDone
		s.send("CAP", "END")
		return
	}
	s.end = &refusal{fmt.Sprintf("%s refused the SASL login of %q: %s (%s)", s.options.Server, s.options.SASLUser, s.last(m), m.Command)}
}

// nickTaken tries another nick before we are welcome; afterwards it is the
// answer to a try to regain the old one, and the next try comes.
func (s *session) nickTaken(m ircmsg.Message) {
	if s.registered {
		return
	}
	tooLong := m.Command == "432" // ERR_ERRONEUSNICKNAME
	if tooLong && s.attempt == 0 {
		s.end = &refusal{fmt.Sprintf("%s refused the nick %q: %s (%s)", s.options.Server, s.nick, s.last(m), m.Command)}
		return
	}
	s.attempt++
	if s.attempt > alternatives {
		s.end = &refusal{fmt.Sprintf("%s has neither the nick %q free nor any like it", s.options.Server, s.options.Nick)}
		return
	}
	s.nick = alternative(s.options.Nick, s.attempt)
	s.send("NICK", s.nick)
}

// alternatives is how many other nicks are tried.
const alternatives = 11

// alternative is the n-th nick to try instead of nick, from 1: two with
// underscores, then such as fit the nine bytes that every server takes
// (RFC 2812, 1.2.1).
func alternative(nick string, n int) string {
	if n <= 2 {
		return nick + strings.Repeat("_", n)
	}
	const most = 8
	return nick[:min(len(nick), most)] + strconv.Itoa(n-2)
}

// welcome is 001: we are in, under the nick that the server says.
func (s *session) welcome(m ircmsg.Message) {
	if s.registered || len(m.Params) == 0 {
		return
	}
	if s.options.SASLPassword.IsSet() && s.sasl != saslDone && !s.noSASL() {
		return // a server that knows no CAP at all
	}
	s.registered = true
	s.nick = m.Params[0]
}

// isupport takes the features of the server that matter here (005).
func (s *session) isupport(m ircmsg.Message) {
	for _, p := range m.Params {
		switch name, value, _ := strings.Cut(p, "="); name {
		case "CASEMAPPING":
			s.casemapping = value
		case "CHANTYPES":
			s.chanTypes = value
		case "STATUSMSG":
			s.statusTypes = value
		case "BOT": // mode of those that are no humans (IRCv3 bot mode)
			s.botMode = value
		}
	}
}

// greeted is the end of the greeting: the features are known, work begins.
func (s *session) greeted() {
	if !s.registered || s.ready {
		return
	}
	s.ready = true
	s.log.Info("irc connected", "server", s.options.Server, "nick", s.nick)
	s.identify()
	if s.botMode != "" {
		s.send("MODE", s.nick, "+"+s.botMode)
	}
	if s.nick != s.options.Nick {
		s.due.regain = s.began.Add(s.options.Timing.Regain)
	}
	s.planJoins()
	s.session.Store(s)
	s.report()
}

// identify tells NickServ who we are, where SASL has not. The nick is named
// while we go by another.
func (s *session) identify() {
	if !s.options.NickServPassword.IsSet() || s.sasl == saslDone || s.nickserv == identityAgreed {
		return
	}
	s.nickserv = identityAsked
	text := "IDENTIFY "
	if s.nick != s.options.Nick {
		text += s.options.Nick + " "
	}
	s.send("PRIVMSG", nickServ, text+s.options.NickServPassword.Reveal())
}

// identified notes that the server calls us registered, by 900 or by our mode.
func (s *session) identified() {
	if s.nickserv == identityAsked {
		s.nickserv = identityAgreed
		s.report()
	}
}
