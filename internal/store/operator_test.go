package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/admin"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/turn"
)

// answer accepts a message of session and ends its turn.
func answer(t *testing.T, s *store.Store, id, session, text string, parts ...outbox.Part) {
	t.Helper()
	m, _, err := s.Accept(t.Context(), turn.Message{
		ID: id, Account: "a", External: id, Chat: "http/" + session, Session: session, Received: time.Now(),
		Ask: turn.Ask{Messages: []chat.Message{{Role: chat.User, Text: text}}},
	}, func(turn.Message) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(t.Context(), turn.Outcome{
		Seq: m.Seq, State: turn.Answered, Session: session, At: time.Now(),
		News: []chat.Message{{Role: chat.User, Text: text}, {Role: chat.Assistant, Text: "re: " + text}}, Parts: parts,
	}, func() {}); err != nil {
		t.Fatal(err)
	}
}

func part(id string) outbox.Part {
	return outbox.Part{Delivery: "dlv_" + id, Message: id, Address: outbox.Address{Account: "a", Chat: "c"}, Part: 1, Parts: 1, Text: "x", Created: time.Now()}
}

// Messages and deliveries are one list, the oldest first, and a delivery leads to
// the trace of the message that it answers.
func TestDeadLettersByTimeAndBackToTheirMessage(t *testing.T) {
	s := open(t, path(t))
	answer(t, s, "msg_1", "s", "x", part("msg_1"), part("msg_1b"))
	open, err := s.OpenParts(t.Context(), "a", 0)
	if err != nil || len(open) != 2 {
		t.Fatal(open, err)
	}
	fail(t, s, "msg_2", "s", "unavailable")
	for i, at := range []time.Duration{-time.Hour, time.Hour} {
		open[i].State, open[i].Finished = outbox.Dead, time.Now().Add(at)
		if err := s.Tried(t.Context(), open[i], false); err != nil {
			t.Fatal(err)
		}
	}
	h, err := admin.New(admin.Options{Store: s, Accept: func(context.Context, turn.Message) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string, into any) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/admin/"+path, nil))
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s %v", path, w.Code, w.Body, err)
		}
	}
	var letters []admin.Letter
	get("deadletters", &letters)
	if len(letters) != 3 || letters[0].ID != open[0].Delivery || letters[1].ID != "msg_2" || letters[2].ID != open[1].Delivery {
		t.Errorf("%+v", letters)
	}
	var trace admin.Trace
	if get("trace/"+letters[0].ID, &trace); trace.ID != "msg_1" || len(trace.Deliveries) != 1 {
		t.Errorf("%+v", trace)
	}
	if _, err := s.Find(t.Context(), "dlv_none"); !errors.Is(err, turn.ErrUnknown) {
		t.Errorf("a delivery that is none: %v", err)
	}
}

// A copy that is made while many write is one moment of the database: it holds
// whole turns and adds up.
func TestBackupWhileManyWriteIsOneMoment(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, store.FileName))
	answer(t, s, "msg_first", "first", "before", part("msg_first"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					answer(t, s, fmt.Sprintf("msg_%d_%d", w, i), fmt.Sprint("s", w), "text")
				}
			}
		})
	}
	backup := filepath.Join(dir, "backup.db")
	err := s.Backup(t.Context(), backup)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(backup); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	if err := s.Backup(t.Context(), backup); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("over another: %v", err)
	}
	s.Close()

	target := filepath.Join(dir, "restored", store.FileName)
	if err := os.Mkdir(filepath.Dir(target), 0o700); err != nil {
		t.Fatal(err)
	}
	if kept, err := store.Restore(t.Context(), backup, target, time.Now()); err != nil || kept != "" {
		t.Fatalf("%q %v", kept, err)
	}
	r := open(t, target)
	n, err := r.Tally(t.Context())
	if err != nil || n.Received < 1 || n.Received != n.Answered+n.Queued+n.Running+n.Failed {
		t.Errorf("%+v %v", n, err)
	}
	for w := range 8 {
		h, err := r.History(t.Context(), fmt.Sprint("s", w))
		if err != nil || len(h)%2 != 0 {
			t.Errorf("session %d has %d messages, %v", w, len(h), err)
		}
	}
	// What was to be sent may have been since.
	parts, err := r.OpenParts(t.Context(), "a", 0)
	if err != nil || len(parts) != 1 || !parts[0].Unsure {
		t.Errorf("%+v %v", parts, err)
	}
}

func TestRestoreKeepsWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, store.FileName)
	s := open(t, path)
	answer(t, s, "msg_1", "s", "old")
	backup := filepath.Join(dir, "b.db")
	if err := s.Backup(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	answer(t, s, "msg_2", "s", "newer")
	s.Close()
	kept, err := store.Restore(t.Context(), backup, path, time.Now())
	if err != nil || !strings.HasPrefix(kept, path+".before-restore-") {
		t.Fatalf("%q %v", kept, err)
	}
	if h := history(t, open(t, path), "s"); len(h) != 2 {
		t.Errorf("restored %v", h)
	}
	if h := history(t, open(t, kept), "s"); len(h) != 4 {
		t.Errorf("kept %v", h)
	}
}

func TestRestoreRefusesWhatIsNoBackup(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, store.FileName)
	answer(t, open(t, path), "msg_1", "s", "text")
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Restore(t.Context(), bad, path, time.Now()); err == nil || exitcode.Of(err) != exitcode.Config {
		t.Errorf("%v", err)
	}
	if after, _ := os.ReadDir(dir); len(after) != len(before) {
		t.Errorf("%v became %v", before, after)
	}
}

func TestPruneTakesWhatIsOldAndNothingOpen(t *testing.T) {
	s := open(t, path(t))
	for i := range 120 {
		answer(t, s, fmt.Sprint("msg_", i), fmt.Sprint("s", i), strings.Repeat("x", 1000))
	}
	answer(t, s, "msg_undelivered", "undelivered", "x", part("msg_undelivered"))
	if _, _, err := s.Accept(t.Context(), turn.Message{ID: "msg_open", Account: "a", External: "o", Chat: "c", Session: "s0", Received: time.Now()}, func(turn.Message) {}); err != nil {
		t.Fatal(err)
	}
	before, err := s.Tally(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Prune(t.Context(), time.Now().Add(-time.Hour), 0); n != 0 || err != nil {
		t.Errorf("nothing is an hour old: %d, %v", n, err)
	}
	size, err := s.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Prune(t.Context(), time.Time{}, size-64<<10)
	if err != nil || n == 0 || n > 110 {
		t.Errorf("for its size %d, %v", n, err)
	}
	if now, err := s.Size(t.Context()); err != nil || now > size-64<<10 {
		t.Errorf("it takes %d, %v", now, err)
	}
	rest, err := s.Prune(t.Context(), time.Now().Add(time.Hour), 0)
	if err != nil || n+rest != 119 {
		t.Errorf("for its age %d more, %v", rest, err)
	}
	if is, err := s.Prunable(t.Context()); is || err != nil {
		t.Errorf("more to remove: %v, %v", is, err)
	}
	if left, err := s.AllSessions(t.Context(), "", 10); err != nil || len(left) != 2 {
		t.Errorf("left %+v, %v", left, err)
	}
	if after, err := s.Tally(t.Context()); err != nil || after != before {
		t.Errorf("counted %+v, before %+v, %v", after, before, err)
	}
	if _, err := s.Message(t.Context(), "msg_5"); !errors.Is(err, turn.ErrUnknown) {
		t.Errorf("%v", err)
	}
}

// A dead letter stays with its conversation until somebody has seen to it, and is
// counted until then. What belongs to no conversation goes by its age.
func TestDeadLettersOutliveRetention(t *testing.T) {
	s := open(t, path(t))
	given := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	for _, id := range []string{"fine", "undelivered", "unanswered"} {
		answer(t, s, "msg_"+id, id, "x", part("msg_"+id))
	}
	open, err := s.OpenParts(t.Context(), "a", 0)
	if err != nil || len(open) != 3 {
		t.Fatal(open, err)
	}
	for _, p := range open {
		if p.State, p.Finished = outbox.Sent, given; p.Message == "msg_undelivered" {
			p.State = outbox.Dead
		}
		if err := s.Tried(t.Context(), p, false); err != nil {
			t.Fatal(err)
		}
	}
	fail(t, s, "msg_failed", "unanswered", "unavailable")
	fail(t, s, "msg_stopped", "never began", turn.Cancelled)
	told := part("told")
	told.Message = "" // it answers no message
	if err := s.Enqueue(t.Context(), []outbox.Part{told}); err != nil {
		t.Fatal(err)
	}
	told.Seq, told.State, told.Finished = open[2].Seq+1, outbox.Sent, given
	if err := s.Tried(t.Context(), told, false); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Dead(t.Context()); err != nil || d.Messages != 1 || d.Deliveries != 1 || !d.Oldest.Equal(given) {
		t.Errorf("%+v, given up at %s, %v", d, given, err)
	}

	all := time.Now().Add(time.Hour)
	if n, err := s.Prune(t.Context(), all, 0); n != 1 || err != nil {
		t.Errorf("removed %d conversations, %v", n, err)
	}
	if d, err := s.Dead(t.Context()); err != nil || d.Messages != 1 || d.Deliveries != 1 {
		t.Errorf("after retention %+v, %v", d, err)
	}
	if _, err := s.Message(t.Context(), "msg_stopped"); !errors.Is(err, turn.ErrUnknown) {
		t.Errorf("what never became a conversation is kept: %v", err)
	}
	if _, err := s.Delivery(t.Context(), told.Delivery); !errors.Is(err, admin.ErrNone) {
		t.Errorf("what answered no message is kept: %v", err)
	}
	if is, err := s.Prunable(t.Context()); is || err != nil {
		t.Errorf("more to remove: %v, %v", is, err)
	}

	if err := errors.Join(s.SettleMessage(t.Context(), "msg_failed", "dropped"), s.SettleParts(t.Context(), []outbox.Part{{Delivery: "dlv_msg_undelivered"}}, "dropped")); err != nil {
		t.Fatal(err)
	}
	if is, err := s.Prunable(t.Context()); !is || err != nil {
		t.Errorf("settled, and nothing to remove: %v", err)
	}
	if n, err := s.Prune(t.Context(), all, 0); n != 2 || err != nil {
		t.Errorf("then removed %d, %v", n, err)
	}
}

// Where each part of an answer was given up alone, as earlier versions did, they
// are one letter all the same; any of them names it, once.
func TestPartsGivenUpAloneAreOneLetter(t *testing.T) {
	s := open(t, path(t))
	now := time.Now()
	var parts []outbox.Part
	for i := range 3 {
		p := part(fmt.Sprint("old", i))
		p.Message, p.Part, p.Parts, p.Created = "msg_old", i+1, 3, now
		parts = append(parts, p)
	}
	answer(t, s, "msg_old", "old", "x", parts...)
	answer(t, s, "msg_other", "other", "x", part("msg_other"))
	opened, err := s.OpenParts(t.Context(), "a", 0)
	if err != nil || len(opened) != 4 {
		t.Fatal(opened, err)
	}
	for _, p := range []outbox.Part{opened[0], opened[2], opened[3]} { // the second waits
		p.State, p.Finished = outbox.Dead, now
		if err := s.Tried(t.Context(), p, false); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := s.Dead(t.Context()); err != nil || d.Deliveries != 2 {
		t.Errorf("%+v %v", d, err)
	}
	list, err := s.DeadAnswers(t.Context(), 1)
	if err != nil || len(list) != 1 || len(list[0]) != 2 || list[0][0].Part != 1 || list[0][1].Part != 3 {
		t.Fatalf("%+v %v", list, err)
	}
	named, err := s.DeadAnswer(t.Context(), "dlv_old2")
	if err != nil || len(named) != 2 || named[0].Delivery != "dlv_old0" {
		t.Errorf("%+v %v", named, err)
	}
	if err := s.SettleParts(t.Context(), named, "dropped"); err != nil {
		t.Error(err)
	}
	if _, err := s.DeadAnswer(t.Context(), "dlv_old2"); !errors.Is(err, admin.ErrNone) {
		t.Errorf("dropped, and still there: %v", err)
	}
	if err := s.ReplayParts(t.Context(), named, []outbox.Part{part("again")}); !errors.Is(err, admin.ErrNone) {
		t.Errorf("dropped, and replayed: %v", err)
	}
	if opened, err := s.OpenParts(t.Context(), "a", 0); err != nil || len(opened) != 1 || opened[0].Part != 2 {
		t.Errorf("open: %+v %v", opened, err)
	}
}

// fail accepts a message of session and has its turn fail.
func fail(t *testing.T, s *store.Store, id, session, reason string) {
	t.Helper()
	m, _, err := s.Accept(t.Context(), turn.Message{ID: id, Account: "a", External: id, Chat: "c", Session: session, Received: time.Now()}, func(turn.Message) {})
	if err == nil {
		err = s.Finish(t.Context(), turn.Outcome{Seq: m.Seq, State: turn.Failed, Reason: reason, Session: session, At: time.Now()}, func() {})
	}
	if err != nil {
		t.Fatal(err)
	}
}
