package chaos

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// repeatMark stands before what may have been delivered before.
const repeatMark = "(perhaps a repeat) "

// message is one sending of one number. Over HTTP there is one for each number,
// whose key the client repeats; on IRC a person sends a number again under a
// further id when no answer came.
type message struct {
	id       string // CHAT.NUMBER.SENDING, unique; the text has it, and so has its answer
	chat     string
	number   int
	http     bool
	refused  bool // by the scripted model, whatever happens: it has to fail
	sent     time.Time
	bounced  bool   // IRC: the network said that nobody has the gateway's nick
	run      string // id of the run, once acknowledged
	failed   string // over HTTP: why, in the gateway's words
	failedAt time.Time
	answers  []answer
}

// answer is what a person read.
type answer struct {
	at       time.Time
	place    int // of the message in the conversation, as the model counted
	text     string
	labelled bool
}

// apology is an IRC answer that says that there is none.
type apology struct {
	at      time.Time
	chat    string
	message string // the gateway's id
}

// fault is something that was done to the gateway.
type fault struct {
	kind       string
	begin, end time.Time
	ends       int  // how many processes at most, without a chance to finish
	loses      bool // what is on its way in from IRC
}

// around says whether f happened between two moments.
func (f fault) around(from, to time.Time) bool {
	return !f.begin.After(to) && !f.end.Before(from)
}

// scrape is the counts of one moment, as /metrics gives them.
type scrape struct {
	at                                                     time.Time
	received, answered, queued, running, failed, duplicate int
}

func (s scrape) String() string {
	return fmt.Sprintf("received %d, answered %d, queued %d, running %d, failed %d", s.received, s.answered, s.queued, s.running, s.failed)
}

// ledger is everything that people, the operator and the network saw. It is
// safe for concurrent use.
type ledger struct {
	mu        sync.Mutex
	order     []*message // as they were sent
	byID      map[string]*message
	apologies []apology
	faults    []fault
	scrapes   []scrape
	oddities  []violation // seen by a person at once
	unread    []string    // what the gateway said beside answers
}

func newLedger() *ledger { return &ledger{byID: map[string]*message{}} }

// send notes a message just before it is sent.
func (l *ledger) send(chat string, number, sending int, http, refused bool) *message {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &message{
		id: fmt.Sprintf("%s.%d.%d", chat, number, sending), chat: chat, number: number,
		http: http, refused: refused, sent: time.Now(),
	}
	l.order = append(l.order, m)
	l.byID[m.id] = m
	return m
}

func (l *ledger) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *ledger) odd(kind, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.oddities = append(l.oddities, violation{kind, fmt.Sprintf(format, args...)})
}

func (l *ledger) fault(f fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, f)
}

var (
	// answerText is what the scripted model says, see modelserver.Answer.
	answerText = regexp.MustCompile(`Message (\d+) of this conversation\. You said: (\w+\.\d+\.\d+)`)
	// setAside names a message that the gateway gave up after three crashes.
	setAside = regexp.MustCompile(`the gateway ended three times.*deadletter show (\w+)\)`)
)

// heard notes what somebody in chat was told, and returns which message it
// answers; nil: none.
func (l *ledger) heard(chat, text string) *message {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	bare, labelled := strings.CutPrefix(text, repeatMark)
	if found := answerText.FindStringSubmatch(bare); found != nil {
		m := l.byID[found[2]]
		if m == nil || m.chat != chat {
			l.oddities = append(l.oddities, violation{"mixed up", fmt.Sprintf("%s was told %q", chat, text)})
			return nil
		}
		place, _ := strconv.Atoi(found[1])
		m.answers = append(m.answers, answer{now, place, bare, labelled})
		return m
	}
	if found := setAside.FindStringSubmatch(bare); found != nil {
		for _, a := range l.apologies {
			if a.message == found[1] {
				return nil
			}
		}
		l.apologies = append(l.apologies, apology{now, chat, found[1]})
		return nil
	}
	l.unread = append(l.unread, chat+": "+text)
	return nil
}

// heardOnIRC is how many answers were read on IRC.
func (l *ledger) heardOnIRC() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.order {
		if !m.http {
			n += len(m.answers)
		}
	}
	return n
}

// open lists the numbers that have no outcome, over IRC those of which no sending
// has one.
func (l *ledger) open() (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	done := map[string]bool{}
	for _, m := range l.order {
		if len(m.answers) > 0 || m.failed != "" {
			done[fmt.Sprint(m.chat, m.number)] = true
		}
	}
	for _, m := range l.order {
		if !done[fmt.Sprint(m.chat, m.number)] {
			ids = append(ids, m.id)
		}
	}
	return ids
}

// outcomes is how many sendings have an answer, and how many failed.
func (l *ledger) outcomes() (answered, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.order {
		switch {
		case len(m.answers) > 0:
			answered++
		case m.failed != "":
			failed++
		}
	}
	return answered, failed + len(l.apologies)
}
