package irc

import (
	"fmt"
	"time"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/hermesgw/hermes/internal/supervise"
)

// channel is one that we want to be in.
type channel struct {
	name, key string
	joined    bool
	why       string        // it is not joined
	wait      time.Duration // the last pause before joining again
	next      time.Time     // when to join; zero: joined, or the answer is awaited
}

// planJoins wants all channels joined now.
func (s *session) planJoins() {
	s.channels = map[string]*channel{}
	for _, spec := range s.options.Channels {
		name, key := channelKey(spec)
		folded := s.fold(name)
		if s.channels[folded] == nil {
			s.channels[folded] = &channel{name: name, key: key, next: s.began}
			s.order = append(s.order, folded)
		}
	}
}

// nextJoin is the channel that is to be joined first; nil: none.
func (s *session) nextJoin() *channel {
	var first *channel
	for _, folded := range s.order {
		c := s.channels[folded]
		if !c.next.IsZero() && (first == nil || c.next.Before(first.next)) {
			first = c
		}
	}
	return first
}

func (s *session) join(c *channel, now time.Time) {
	c.next = now.Add(s.options.Timing.RejoinMax) // should no answer come
	s.bucket.take(now)
	if c.key != "" {
		s.send("JOIN", c.name, c.key)
		return
	}
	s.send("JOIN", c.name)
}

// joined is the JOIN of somebody. Our own shows us as others see us.
func (s *session) joined(m ircmsg.Message) {
	if len(m.Params) == 0 || !s.ours(m) {
		return
	}
	s.seen(m.Source)
	if c := s.channels[s.fold(m.Params[0])]; c != nil {
		c.joined, c.why, c.next = true, "", time.Time{}
		s.report()
	}
}

// seen notes our nick!user@host as others see it.
func (s *session) seen(source string) {
	if n := len(source) - len(s.nick); n > 0 {
		s.source = n
	}
}

// out notes that we are not in the channel name, and when to try again.
func (s *session) out(name, why string) {
	c := s.channels[s.fold(name)]
	if c == nil {
		return
	}
	t := s.options.Timing
	c.joined, c.why = false, why
	c.wait = min(max(2*c.wait, t.Rejoin), t.RejoinMax)
	c.next = time.Now().Add(c.wait)
	s.report()
}

// left is a PART: servers make us leave by it too.
func (s *session) left(m ircmsg.Message) {
	if len(m.Params) > 0 && s.ours(m) {
		s.out(m.Params[0], "it was left")
	}
}

func (s *session) kicked(m ircmsg.Message) {
	if len(m.Params) < 2 || s.fold(m.Params[1]) != s.fold(s.nick) {
		return
	}
	s.out(m.Params[0], fmt.Sprintf("kicked by %s: %s", s.show(m.Nick()), s.last(m)))
}

// invited joins at once a channel that is ours to be in; others are none of
// our business.
func (s *session) invited(m ircmsg.Message) {
	if len(m.Params) < 2 {
		return
	}
	if c := s.channels[s.fold(m.Params[1])]; c != nil && !c.joined {
		c.next = time.Now()
	}
}

// joinRefused takes the numerics that name a channel that we may not enter.
func (s *session) joinRefused(m ircmsg.Message) {
	if len(m.Params) < 2 {
		return
	}
	if c := s.channels[s.fold(m.Params[1])]; c != nil && !c.joined {
		s.out(c.name, fmt.Sprintf("%s (%s)", s.last(m), m.Command))
	}
}

// report tells the state of a connection that is ready.
func (s *session) report() {
	if !s.ready || !s.due.stop.IsZero() {
		return
	}
	for _, folded := range s.order {
		if c := s.channels[folded]; c.why != "" {
			s.tell(s.host, supervise.Degraded, fmt.Sprintf("not in %s: %s", c.name, c.why))
			return
		}
	}
	for _, folded := range s.order {
		if c := s.channels[folded]; !c.joined {
			s.tell(s.host, supervise.Starting, "joining "+c.name)
			return
		}
	}
	switch {
	case s.nickserv == identityAsked && s.nickSaid == "":
		s.tell(s.host, supervise.Degraded, "NickServ has not answered yet")
	case s.nickserv == identityAsked:
		s.tell(s.host, supervise.Degraded, "not identified; NickServ said: "+s.nickSaid)
	case s.nick != s.options.Nick:
		s.tell(s.host, supervise.Ready, fmt.Sprintf("as %s: the nick %s is taken", s.show(s.nick), s.options.Nick))
	default:
		s.tell(s.host, supervise.Ready, "")
	}
}
