package chaos

import (
	"slices"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/model/modelserver"
)

// The times of a small history, in seconds.
func at(seconds float64) time.Time {
	return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

func called(id string, from, to float64, end string) modelserver.Seen {
	return modelserver.Seen{Text: "[[slow 80ms]] " + id + " hello", Time: at(from), Ended: at(to), End: end}
}

func wrote(id, chat string, number int, sent float64, answers ...answer) *message {
	return &message{id: id, chat: chat, number: number, sent: at(sent), answers: answers, http: chat[0] != 'i'}
}

func told(when float64, place int) answer { return answer{at: at(when), place: place, text: "so"} }

func killed(from, to float64) fault {
	return fault{kind: "kill -9", begin: at(from), end: at(to), ends: 1, loses: true}
}

// TestCheckerFindsEachFault shows the checker small histories, each with one
// thing wrong, and beside each the same one without.
func TestCheckerFindsEachFault(t *testing.T) {
	for name, c := range map[string]struct {
		messages []*message
		calls    []modelserver.Seen
		faults   []fault
		scrapes  []scrape
		want     string // the kind of violation; empty: none
	}{
		"answered": {
			messages: []*message{wrote("r.1.1", "r", 1, 0, told(2, 1)), wrote("r.2.1", "r", 2, 1, told(3, 2))},
			calls:    []modelserver.Seen{called("r.1.1", 1, 2, "answered"), called("r.2.1", 2, 3, "answered")},
		},
		"no outcome over HTTP": {messages: []*message{wrote("r.1.1", "r", 1, 0)}, faults: []fault{killed(0, 1)}, want: "lost"},
		"IRC, at a kill, before it was accepted": {
			messages: []*message{wrote("i.1.1", "i", 1, 1), wrote("i.1.2", "i", 1, 9, told(10, 1))},
			calls:    []modelserver.Seen{called("i.1.2", 9, 10, "answered")},
			faults:   []fault{killed(1, 2)},
		},
		"IRC, a kill, but the model was asked": {
			messages: []*message{wrote("i.1.1", "i", 1, 1)},
			calls:    []modelserver.Seen{called("i.1.1", 1, 1.5, "answered")}, faults: []fault{killed(1, 2)}, want: "lost",
		},
		"IRC, and nothing happened": {
			messages: []*message{wrote("i.1.1", "i", 1, 1), wrote("i.1.2", "i", 1, 9, told(10, 1))},
			faults:   []fault{killed(20, 21)}, want: "lost",
		},
		"answered twice": {messages: []*message{wrote("i.1.1", "i", 1, 1, told(2, 1), told(3, 1))}, want: "doubled"},
		"the second time with a label": {
			messages: []*message{wrote("i.1.1", "i", 1, 1, told(2, 1), answer{at: at(3), place: 1, text: "so", labelled: true})},
			faults:   []fault{killed(2, 2.5)},
		},
		"a label for nothing": {
			messages: []*message{wrote("i.1.1", "i", 1, 1, answer{at: at(3), place: 1, text: "so", labelled: true})}, want: "label",
		},
		"a place is missing": {
			messages: []*message{wrote("r.1.1", "r", 1, 0, told(2, 1)), wrote("r.2.1", "r", 2, 1, told(3, 3))}, want: "order",
		},
		"asked for the second first": {
			messages: []*message{wrote("r.1.1", "r", 1, 0, told(4, 1)), wrote("r.2.1", "r", 2, 1, told(5, 2))},
			calls:    []modelserver.Seen{called("r.2.1", 1, 2, "answered"), called("r.1.1", 2, 3, "answered")}, want: "order",
		},
		"asked again at a kill": {
			messages: []*message{wrote("r.1.1", "r", 1, 0, told(6, 1))},
			calls:    []modelserver.Seen{called("r.1.1", 1, 2, "answered"), called("r.1.1", 4, 5, "answered")}, faults: []fault{killed(2, 3)},
		},
		"asked again twice at one kill": {
			messages: []*message{wrote("r.1.1", "r", 1, 0, told(9, 1))},
			calls: []modelserver.Seen{
				called("r.1.1", 1, 2, "answered"), called("r.1.1", 4, 5, "answered"), called("r.1.1", 6, 7, "answered"),
			},
			faults: []fault{killed(2, 3)}, want: "asked again",
		},
		"asked again after the answer": {
			messages: []*message{wrote("r.1.1", "r", 1, 0, told(2.5, 1))},
			calls:    []modelserver.Seen{called("r.1.1", 1, 2, "answered"), called("r.1.1", 4, 5, "answered")}, faults: []fault{killed(2, 3)},
			want: "asked again",
		},
		"the model failed and was asked again": {
			messages: []*message{wrote("r.1.1", "r", 1, 0, told(6, 1))},
			calls:    []modelserver.Seen{called("r.1.1", 1, 2, "reset"), called("r.1.1", 4, 5, "answered")},
		},
		"hung up for nothing": {
			messages: []*message{wrote("r.1.1", "r", 1, 0, told(6, 1))},
			calls:    []modelserver.Seen{called("r.1.1", 1, 2, "gone"), called("r.1.1", 4, 5, "answered")}, want: "asked again",
		},
		"failed for nothing": {
			messages: []*message{{id: "r.1.1", chat: "r", number: 1, http: true, sent: at(0), failed: "the database failed", failedAt: at(2)}},
			want:     "failed",
		},
		"given up after two crashes": {
			messages: []*message{{id: "r.1.1", chat: "r", number: 1, http: true, sent: at(0), failed: "the gateway ended three times", failedAt: at(9)}},
			faults:   []fault{killed(1, 2), killed(3, 4)}, want: "given up",
		},
		"counts that do not add up":     {scrapes: []scrape{{received: 2, answered: 1}, {}}, want: "accounting"},
		"more answers than people have": {scrapes: []scrape{{received: 1, answered: 1}}, want: "accounting"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			l.order, l.faults, l.scrapes = c.messages, c.faults, c.scrapes
			_, found := check(l, c.calls, true)
			switch {
			case c.want == "" && len(found) > 0:
				t.Errorf("found %v", found)
			case c.want != "" && !slices.ContainsFunc(found, func(v violation) bool { return v.kind == c.want }):
				t.Errorf("found %v, want one that is called %q", found, c.want)
			}
		})
	}
}
