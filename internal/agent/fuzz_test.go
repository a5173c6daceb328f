package agent_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
)

// Whatever was said, however much of it, and however badly summaries go: no call
// is over the budget; what is shown is the end of the conversation, in order; and
// each older message is in the summary that is shown, or counted as left out.
func FuzzWindow(f *testing.F) {
	f.Add(uint16(0), uint8(0), []byte("short"))
	f.Add(uint16(0), uint8(3), []byte(strings.Repeat("a conversation that goes on and on. ", 4)))
	f.Add(uint16(3500), uint8(1), []byte(strings.Repeat("\xff\x01\xfe\x02\x60\x07", 20)))
	f.Add(uint16(800), uint8(2), []byte(strings.Repeat("\xf0", 60)))
	f.Fuzz(func(t *testing.T, budget uint16, spoil uint8, lengths []byte) {
		if len(lengths) > 300 {
			return
		}
		w := &talk{t: t, budget: 512 + int(budget)%8000, spoil: int(spoil % 5)}
		for i, b := range lengths {
			w.h.add([]chat.Role{chat.User, chat.Assistant}[i%2], fmt.Sprintf("#%d# %s", i+1, strings.Repeat("x", int(b)*int(b)/8)))
			if b%7 == 0 || i == len(lengths)-1 {
				w.turn()
			}
		}
	})
}

// talk is a conversation whose every call is looked at.
type talk struct {
	t      *testing.T
	h      memory
	budget int // tokens
	spoil  int // each spoil-th summary fails; 0: none
	asked  int // summaries
	told   map[int]bool
}

var (
	numbered = regexp.MustCompile(`#(\d+)#`)
	leftOut  = regexp.MustCompile(`(\d+) earlier messages of this conversation are not shown here`)
)

// numbers are those of the messages that text holds, in order.
func numbers(text string) (list []int) {
	for _, m := range numbered.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(m[1])
		list = append(list, n)
	}
	return list
}

func (w *talk) turn() {
	w.t.Helper()
	if _, _, err := answer(w.t, agent.Options{Model: modelOf(w), ContextTokens: w.budget, Retries: -1}, &w.h, "and now?"); err != nil {
		w.t.Fatalf("budget %d, %d messages: %v", w.budget, len(w.h.said), err)
	}
}

// look is one call of the model.
func (w *talk) look(req chat.Request, emit func(string) error) (chat.Reply, error) {
	if n := sizeOf(req); n > w.budget {
		w.t.Errorf("a call of about %d tokens, %d are set", n, w.budget)
	}
	if isSummary(req) {
		return w.summary(req, emit)
	}
	w.window(req.Messages)
	return say("yes")(req, emit)
}

// summary notes what the record is made of: all of it must have been shown once.
func (w *talk) summary(req chat.Request, emit func(string) error) (chat.Reply, error) {
	if w.asked++; w.spoil > 0 && w.asked%w.spoil == 0 {
		return fail(chat.Invalid, 0)(req, emit)
	}
	if w.told == nil {
		w.told = map[int]bool{}
	}
	list := numbers(req.Messages[1].Text)
	for i, n := range list {
		if i > 0 && n != list[i-1]+1 {
			w.t.Errorf("a summary is made of %v", list)
		}
		w.told[n] = true
	}
	return say("RECORD "+strings.Repeat("y", w.budget/8))(req, emit)
}

// window holds what the model is shown against what was said.
func (w *talk) window(shown []chat.Message) {
	system, text := "", ""
	for _, m := range shown[:len(shown)-1] {
		if m.Role == chat.System {
			system += m.Text
		} else {
			text += m.Text
		}
	}
	list, all := numbers(text), len(w.h.said)
	for i, n := range list {
		if n != all-len(list)+i+1 {
			w.t.Fatalf("of %d messages these are shown: %v", all, list)
		}
	}
	covered, left := 0, 0
	if s, ok, _ := w.h.Summary(w.t.Context(), "s"); ok && strings.Contains(system, "RECORD") {
		covered = int(s.Upto)
	}
	for n := 1; n <= covered; n++ {
		if !w.told[n] {
			w.t.Errorf("message %d was never shown to who summarised it", n)
		}
	}
	if m := leftOut.FindStringSubmatch(system); m != nil {
		left, _ = strconv.Atoi(m[1])
	}
	if covered+left+len(list) != all || shown[len(shown)-1].Text != "and now?" {
		w.t.Errorf("budget %d: of %d messages %d are in the summary, %d left out, %d shown", w.budget, all, covered, left, len(list))
	}
}

func modelOf(w *talk) *model {
	return &model{name: "m", script: []func(chat.Request, func(string) error) (chat.Reply, error){w.look}}
}
