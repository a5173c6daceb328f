package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/model/modelserver"
)

// violation is a broken promise.
type violation struct{ kind, what string }

func (v violation) String() string { return v.kind + ": " + v.what }

// counts are what the checker looked at.
type counts struct {
	sent, answered, failed, setAside int
	bounced                          int // IRC sendings while the gateway was not there, and the network said so
	unaccepted                       int // IRC sendings that died with a process or a connection
	labelled, labelledFirst          int // copies; of those the only one that arrived
	orphans                          int // requests to the model that were read when their process was gone
	calls, retried, repeated         int // of the model
	repeatsAt                        int // the most at one fault
	scrapes                          int
	faults                           map[string]int
}

// String is one line for each thing that was counted.
func (c counts) String() string {
	var b strings.Builder
	total := 0
	for _, kind := range slices.Sorted(maps.Keys(c.faults)) {
		fmt.Fprintf(&b, "%s %d, ", kind, c.faults[kind])
		total += c.faults[kind]
	}
	return fmt.Sprintf("faults: %d (%s)\n", total, strings.TrimSuffix(b.String(), ", ")) +
		fmt.Sprintf("messages: %d sent, %d answered, %d failed as scripted, %d set aside after three crashes; IRC: %d bounced, %d never accepted\n",
			c.sent, c.answered, c.failed, c.setAside, c.bounced, c.unaccepted) +
		fmt.Sprintf("deliveries labelled as perhaps a repeat: %d, of which the first to arrive: %d\n", c.labelled, c.labelledFirst) +
		fmt.Sprintf("model calls: %d, of which retried after a scripted failure or a lost connection %d, repeated after a kill %d (at most %d at one fault, of nine chats; a double kill is one fault); read when their process was gone %d\n",
			c.calls, c.retried, c.repeated, c.repeatsAt, c.orphans) +
		fmt.Sprintf("scrapes with exact accounting: %d", c.scrapes)
}

func (c *counts) add(o counts) {
	for _, pair := range [][2]*int{
		{&c.sent, &o.sent},
		{&c.answered, &o.answered},
		{&c.failed, &o.failed},
		{&c.setAside, &o.setAside},
		{&c.bounced, &o.bounced},
		{&c.unaccepted, &o.unaccepted},
		{&c.labelled, &o.labelled},
		{&c.labelledFirst, &o.labelledFirst},
		{&c.calls, &o.calls},
		{&c.retried, &o.retried},
		{&c.repeated, &o.repeated},
		{&c.orphans, &o.orphans},
		{&c.scrapes, &o.scrapes},
	} {
		*pair[0] += *pair[1]
	}
	c.repeatsAt = max(c.repeatsAt, o.repeatsAt)
	if c.faults == nil {
		c.faults = map[string]int{}
	}
	for kind, n := range o.faults {
		c.faults[kind] += n
	}
}

// crashes is how many processes must end while a message is answered before it
// may be given up.
const crashes = 3

// slack is how long after a fault something may still arrive that was under way:
// a sending at a connection whose end is not known yet, or at the model server a
// request of a process that is gone. TCP sends again within a second at first.
const slack = time.Second

// asked is when the gateway began to ask. Where its end of the connection was
// closed already when the model server read the request, it is a process that is
// gone who asked, a little earlier.
func asked(s modelserver.Seen) time.Time {
	if s.Orphan {
		return s.Time.Add(-slack)
	}
	return s.Time
}

// checker compares what people saw with what the model server saw.
type checker struct {
	ledger *ledger
	calls  map[string][]modelserver.Seen // by message, in the order of time
	counts counts
	found  []violation
	// repeatsAt is the calls that were made again because of a fault, by its place.
	repeatsAt map[int]int
	over      bool // nothing more will come: what has no answer now is lost
}

// check reads both records. While things go on, over is false and only what can
// never become right is found.
func check(l *ledger, seen []modelserver.Seen, over bool) (counts, []violation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &checker{ledger: l, calls: map[string][]modelserver.Seen{}, over: over, found: slices.Clone(l.oddities), repeatsAt: map[int]int{}}
	c.counts.faults = map[string]int{}
	for _, f := range l.faults {
		c.counts.faults[f.kind]++
	}
	for _, s := range seen {
		if id := identify(s.Text); id != "" {
			c.calls[id] = append(c.calls[id], s)
			c.counts.calls++
			if s.Orphan {
				c.counts.orphans++
			}
		}
	}
	chats := map[string][]*message{}
	for _, m := range l.order {
		chats[m.chat] = append(chats[m.chat], m)
	}
	for _, chat := range slices.Sorted(maps.Keys(chats)) {
		list := chats[chat]
		c.outcomes(chat, list)
		c.copies(list)
		c.sequence(list)
		c.repeats(list)
	}
	c.accounting()
	return c.counts, c.found
}

// identify finds the id in a message's text.
func identify(text string) string {
	if i := strings.LastIndex(text, "]] "); i >= 0 {
		text = text[i+3:]
	}
	id, _, _ := strings.Cut(text, " ")
	return id
}

func (c *checker) bad(kind, format string, args ...any) {
	c.found = append(c.found, violation{kind, fmt.Sprintf(format, args...)})
}

// outcomes finds what was accepted and has no outcome. Over HTTP everything is
// accepted in the end, since the client does not give up. On IRC a sending was
// accepted when the model was asked for it, or when nothing happened between its
// sending and the answer to a later one of the same chat: they are read in order.
func (c *checker) outcomes(chat string, list []*message) {
	apologies := 0
	for _, a := range c.ledger.apologies {
		if a.chat == chat {
			apologies++
			c.apologised(a, list)
		}
	}
	c.counts.setAside += apologies
	for i, m := range list {
		c.counts.sent++
		switch {
		case len(m.answers) > 0:
			c.counts.answered++
			if m.refused {
				c.bad("made up", "%s has an answer, and the model gave none: %q", m.id, m.answers[0].text)
			}
		case m.failed != "":
			c.failure(m)
		case m.bounced:
			c.counts.bounced++
		case !c.over:
		case m.http:
			c.bad("lost", "%s has no outcome (run %q)", m.id, m.run)
		case apologies > 0 && (len(c.calls[m.id]) > 0 || !c.excused(m, list[i+1:])):
			apologies--
		case len(c.calls[m.id]) > 0:
			c.bad("lost", "the model was asked for %s, so it was accepted; nobody was told anything", m.id)
		case c.excused(m, list[i+1:]):
			c.counts.unaccepted++
		default:
			c.bad("lost", "%s was sent at %s and nothing happened that could have lost it", m.id, clock(m.sent))
		}
	}
}

// failure judges a message over HTTP that failed.
func (c *checker) failure(m *message) {
	switch {
	case m.refused && strings.Contains(m.failed, "scripted refusal"):
		c.counts.failed++
	case strings.Contains(m.failed, "the gateway ended three times"):
		c.counts.setAside++
		if n := c.ended(m.sent, m.failedAt); n < crashes {
			c.bad("given up", "%s was set aside after %d crashes", m.id, n)
		}
	default:
		c.bad("failed", "%s failed although the model would have answered: %s", m.id, m.failed)
	}
}

func (c *checker) apologised(a apology, list []*message) {
	if n := c.ended(list[0].sent, a.at); n < crashes {
		c.bad("given up", "%s was set aside in %s after %d crashes", a.message, a.chat, n)
	}
}

// ended is how many processes were ended between two moments.
func (c *checker) ended(from, to time.Time) (n int) {
	for _, f := range c.ledger.faults {
		if f.around(from, to) {
			n += f.ends
		}
	}
	return n
}

// excused says whether m can have been lost before it was accepted: whether
// something happened before a later one of the chat was, as the model or a
// person shows.
func (c *checker) excused(m *message, later []*message) bool {
	proof := time.Now()
	earlier := func(t time.Time) {
		if t.Before(proof) {
			proof = t
		}
	}
	for _, other := range later {
		if calls := c.calls[other.id]; len(calls) > 0 {
			earlier(calls[0].Time)
		}
		if len(other.answers) > 0 {
			earlier(other.answers[0].at)
		}
	}
	return slices.ContainsFunc(c.ledger.faults, func(f fault) bool {
		return f.loses && f.around(m.sent.Add(-slack), proof)
	})
}

// copies finds answers that came twice without a label. Over HTTP a client that
// asks again under its key is told the same again.
func (c *checker) copies(list []*message) {
	for _, m := range list {
		for i, a := range m.answers {
			switch {
			case a.labelled:
				c.counts.labelled++
				if i == 0 {
					c.counts.labelledFirst++
				}
				if !slices.ContainsFunc(c.ledger.faults, func(f fault) bool { return f.around(m.sent, a.at) }) {
					c.bad("label", "%s is labelled as perhaps a repeat, and nothing had happened", m.id)
				}
			case m.http && a.text != m.answers[0].text:
				c.bad("doubled", "%s was answered %q and then %q", m.id, m.answers[0].text, a.text)
			case !m.http && i > 0:
				c.bad("doubled", "%s was answered again, without a label", m.id)
			}
		}
	}
}

// sequence finds what is out of order. The model counts the messages of a
// conversation: each answer must have the next place, and the model must have
// been asked in the order of sending.
func (c *checker) sequence(list []*message) {
	place := 0
	var before *message // the last that the model was asked for
	for _, m := range list {
		if calls := c.calls[m.id]; len(calls) > 0 {
			if before != nil {
				last := c.calls[before.id]
				if end := last[len(last)-1]; end.Time.After(calls[0].Time) {
					c.bad("order", "the model was asked for %s before it was done with %s", m.id, before.id)
				}
			}
			before = m
		}
		if len(m.answers) == 0 {
			if m.http && m.failed == "" { // the rest has no outcome yet either
				return
			}
			continue
		}
		if place++; m.answers[0].place != place {
			c.bad("order", "%s is message %d of its conversation, and should be %d", m.id, m.answers[0].place, place)
			place = m.answers[0].place
		}
	}
	c.arrivals(list)
}

// arrivals finds answers that a person read in another order.
func (c *checker) arrivals(list []*message) {
	var last *message
	for _, m := range list {
		if m.http || len(m.answers) == 0 {
			continue
		}
		if last != nil && m.answers[0].at.Before(last.answers[0].at) {
			c.bad("order", "the answer to %s came before that to %s", m.id, last.id)
		}
		last = m
	}
}

// repeats finds calls of the model that were made again. Turns of a chat run one
// at a time, and a call is a turn's only step, so a process that ends can have
// one call of each chat whose outcome is not committed: that one may be made
// again, once for each such end.
func (c *checker) repeats(list []*message) {
	used := map[int]int{}
	for _, m := range list {
		calls := c.calls[m.id]
		for i, call := range calls {
			if len(m.answers) > 0 && call.Time.After(m.answers[0].at) {
				c.bad("asked again", "%s was answered at %s and the model asked again at %s", m.id, clock(m.answers[0].at), clock(call.Time))
			}
			if i == 0 {
				continue
			}
			switch previous := calls[i-1]; previous.End {
			case "answered":
				c.repeat(m, previous, call, used)
			case "gone", "":
				c.cutOff(m, previous, call, used)
			default: // the model failed as scripted
				c.counts.retried++
			}
		}
	}
}

// inFlight finds the process whose end excuses that a call was made again; each
// excuses one in a chat.
func (c *checker) inFlight(first, again modelserver.Seen, used map[int]int) bool {
	for i, f := range c.ledger.faults {
		if used[i] < f.ends && f.around(asked(first), again.Time) {
			used[i]++
			c.repeatsAt[i]++
			c.counts.repeated++
			c.counts.repeatsAt = max(c.counts.repeatsAt, c.repeatsAt[i])
			return true
		}
	}
	return false
}

// repeat judges a call that the model had answered.
func (c *checker) repeat(m *message, first, again modelserver.Seen, used map[int]int) {
	if !c.inFlight(first, again, used) {
		c.bad("asked again", "the model answered %s at %s and was asked again at %s; no process ended in between",
			m.id, clock(first.Ended), clock(again.Time))
	}
}

// cutOff judges a call that broke off: by the end of a process, or of a
// connection.
func (c *checker) cutOff(m *message, first, again modelserver.Seen, used map[int]int) {
	if c.inFlight(first, again, used) {
		return
	}
	if slices.ContainsFunc(c.ledger.faults, func(f fault) bool { return f.around(asked(first), again.Time) }) {
		c.counts.retried++
		return
	}
	c.bad("asked again", "the gateway hung up on the model over %s, asked at %s and left at %s after %d pieces, and asked again at %s; nothing had happened",
		m.id, clock(first.Time), clock(first.Ended), first.Pieces, clock(again.Time))
}

// accounting finds counts that do not add up.
func (c *checker) accounting() {
	for _, s := range c.ledger.scrapes {
		if s.received != s.answered+s.queued+s.running+s.failed {
			c.bad("accounting", "at %s: %s", clock(s.at), s)
		}
		c.counts.scrapes++
	}
	if !c.over || len(c.ledger.scrapes) == 0 {
		return
	}
	last := c.ledger.scrapes[len(c.ledger.scrapes)-1]
	failed := c.counts.failed + c.counts.setAside
	if last.answered != c.counts.answered || last.failed != failed || last.queued != 0 || last.running != 0 {
		c.bad("accounting", "at the end people have %d answers and %d failures; the gateway says: %s", c.counts.answered, failed, last)
	}
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }
