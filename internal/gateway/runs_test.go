package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/model/offline"
	"github.com/hermesgw/hermes/internal/store"
)

type run struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Status    string `json:"status"`
	SessionID string `json:"session_id"`
	CreatedAt int64  `json:"created_at"`
	Output    string `json:"output"`
	Error     struct{ Code, Message string }
}

func (r *running) run(t testing.TB, method, path, body string, want int, header ...string) run {
	t.Helper()
	resp, text := r.do(t, method, path, body, header...)
	if resp.StatusCode != want {
		t.Fatalf("%s %s: %s %s", method, path, resp.Status, text)
	}
	var got run
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return got
}

func (r *running) finished(t testing.TB, id string) run {
	t.Helper()
	var got run
	until(t, id+" ends", func() bool {
		got = r.run(t, http.MethodGet, "/v1/runs/"+id, "", 200)
		return got.Status != "queued" && got.Status != "running"
	})
	return got
}

// event is one server-sent event.
type event struct {
	id   int64
	name string
	data map[string]any
}

// events reads a run's events after last until the stream ends or done says so.
func (r *running) events(t testing.TB, id string, last int64, enough func(event) bool) []event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/v1/runs/"+id+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if last > 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(last, 10))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	var list []event
	var e event
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			e.id, _ = strconv.ParseInt(value, 10, 64)
		case "event":
			e.name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e.data); err != nil {
				t.Fatalf("%s: %v", value, err)
			}
		case "":
			list = append(list, e)
			if enough != nil && enough(e) {
				return list
			}
			e = event{}
		}
	}
	return list
}

// text is what a client that follows offset puts together.
func text(t testing.TB, list []event) string {
	t.Helper()
	out, last := "", int64(0)
	for _, e := range list {
		if e.id <= last {
			t.Errorf("id %d after %d", e.id, last)
		}
		last = e.id
		if e.name == "message.delta" {
			out = out[:int(e.data["offset"].(float64))] + e.data["delta"].(string)
		}
	}
	return out
}

func TestRunFromCreationToTheEnd(t *testing.T) {
	r := start(t)
	made := r.run(t, http.MethodPost, "/v1/runs", `{"input":"hello","session_id":"s"}`, 202, "Idempotency-Key", "k")
	if !strings.HasPrefix(made.ID, "run_") || made.Object != "run" || made.SessionID != "s" || made.CreatedAt == 0 {
		t.Errorf("%+v", made)
	}
	got := r.finished(t, made.ID)
	if got.Status != "completed" || !strings.Contains(got.Output, "You said: hello") {
		t.Errorf("%+v", got)
	}
	if again := r.run(t, http.MethodPost, "/v1/runs", `{"input":"hello","session_id":"s"}`, 200, "Idempotency-Key", "k"); again.ID != made.ID {
		t.Errorf("the same key made %s", again.ID)
	}
	if resp, body := r.do(t, http.MethodPost, "/v1/runs", `{"input":"other","session_id":"s"}`, "Idempotency-Key", "k"); resp.StatusCode != 409 || !strings.Contains(body, "idempotency_conflict") {
		t.Errorf("another request under the key: %s %s", resp.Status, body)
	}
	list := r.events(t, made.ID, 0, nil)
	if names := fmt.Sprint(list[0].name, list[1].name, list[2].name, list[len(list)-1].name); names != "run.statusrun.statusmessage.deltarun.done" {
		t.Errorf("events %s", names)
	}
	if list[0].id != 1 || text(t, list) != got.Output {
		t.Errorf("first id %d; %q", list[0].id, text(t, list))
	}
	if rest := r.events(t, made.ID, list[len(list)-1].id, nil); rest != nil {
		t.Errorf("after the end: %v", rest)
	}
	// A chat and a run of one session are one conversation.
	if said := r.ask(t, "s", "again"); !strings.Contains(said, "Turn 2 ") {
		t.Errorf("%q", said)
	}
}

func TestEventsGoOnWhereAClientWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), store.FileName)
	db := openStore(t, path)
	let := make(chan struct{})
	words := func(ctx context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
		if err := emit("first "); err != nil {
			return chat.Reply{}, err
		}
		select {
		case <-let:
		case <-ctx.Done():
			return chat.Reply{}, ctx.Err()
		}
		return chat.Reply{Text: "first second", Finish: chat.FinishStop}, emit("second")
	}
	r := start(t, func(o *gateway.Options) { o.Store = db }, withModel(script(words)))
	id := r.run(t, http.MethodPost, "/v1/runs", `{"input":"x"}`, 202).ID
	head := r.events(t, id, 0, func(e event) bool { return e.name == "message.delta" })
	last := head[len(head)-1].id

	// In the same process the rest follows without a gap.
	go func() { let <- struct{}{} }()
	tail := r.events(t, id, last, nil)
	if got := text(t, append(head, tail...)); got != "first second" || tail[0].name != "message.delta" {
		t.Errorf("%q from %v", got, tail)
	}

	// Another process has the text alone: the same places, the same ids.
	second := r.run(t, http.MethodPost, "/v1/runs", `{"input":"y"}`, 202).ID
	cut := r.events(t, second, 0, func(e event) bool { return e.name == "message.delta" })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Drain(ctx); err == nil {
		t.Error("the drain was complete")
	}
	r.stop()
	db.Close()
	db = openStore(t, path)
	r = start(t, func(o *gateway.Options) { o.Store = db }, withModel(script(words)))
	tail = r.events(t, id, last, nil)
	if got := text(t, append(head[:len(head):len(head)], tail...)); got != "first second" {
		t.Errorf("after a restart: %q from %v", got, tail)
	}

	// A turn that was cut begins again: offset says so.
	go func() { let <- struct{}{} }()
	tail = r.events(t, second, cut[len(cut)-1].id, nil)
	if tail[0].name != "run.status" || tail[0].data["status"] != "running" {
		t.Errorf("%v", tail[0])
	}
	if got := text(t, append(cut, tail...)); got != "first second" {
		t.Errorf("a turn that was cut: %q", got)
	}
}

func TestStoppedRun(t *testing.T) {
	r := start(t, withModel(offline.New(offline.Options{Delay: time.Hour})))
	first := r.run(t, http.MethodPost, "/v1/runs", `{"input":"a","session_id":"s"}`, 202)
	second := r.run(t, http.MethodPost, "/v1/runs", `{"input":"b","session_id":"s"}`, 202)
	until(t, "it runs", func() bool { return r.run(t, http.MethodGet, "/v1/runs/"+first.ID, "", 200).Status == "running" })
	for _, id := range []string{second.ID, first.ID} {
		if got := r.run(t, http.MethodPost, "/v1/runs/"+id+"/stop", "", 200); got.Status != "cancelled" || got.Error.Code != "cancelled" {
			t.Errorf("%+v", got)
		}
	}
	if got := r.run(t, http.MethodPost, "/v1/runs/"+first.ID+"/stop", "", 200); got.Status != "cancelled" {
		t.Errorf("stopping it again: %+v", got)
	}
	if n := r.metric(t, "hermes_messages_failed_total"); n != 2 {
		t.Errorf("%v failed", n)
	}
	done := r.events(t, first.ID, 0, nil)
	if last := done[len(done)-1]; last.name != "run.done" || last.data["status"] != "cancelled" {
		t.Errorf("%v", last)
	}
}

func TestListOfRuns(t *testing.T) {
	r := start(t)
	var ids []string
	for i := range 5 {
		ids = append(ids, r.run(t, http.MethodPost, "/v1/runs", fmt.Sprintf(`{"input":"n%d","session_id":"s%d"}`, i, i%2), 202).ID)
		r.finished(t, ids[i])
	}
	r.post(t, hello) // a chat is no run
	list := func(query string) (got []string, more bool) {
		t.Helper()
		resp, body := r.do(t, http.MethodGet, "/v1/runs"+query, "")
		var page struct {
			Object  string
			Data    []run
			HasMore bool `json:"has_more"`
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || resp.StatusCode != 200 || page.Object != "list" {
			t.Fatalf("%s %s %v", resp.Status, body, err)
		}
		for _, one := range page.Data {
			got = append(got, one.ID)
		}
		return got, page.HasMore
	}
	for query, want := range map[string]string{
		"": "4 3 2 1 0", "?session_id=s1": "3 1", "?status=completed&limit=2": "4 3 more", "?status=failed": "",
		"?status=cancelled": "", "?status=queued": "", "?after=" + ids[2]: "1 0",
	} {
		got, more := list(query)
		var numbers []string
		for _, id := range got {
			for i := range ids {
				if ids[i] == id {
					numbers = append(numbers, strconv.Itoa(i))
				}
			}
		}
		if more {
			numbers = append(numbers, "more")
		}
		if strings.Join(numbers, " ") != want {
			t.Errorf("%q: %v, want %s", query, numbers, want)
		}
	}
	for _, query := range []string{"?status=odd", "?limit=0", "?limit=x", "?after=run_none"} {
		if resp, _ := r.do(t, http.MethodGet, "/v1/runs"+query, ""); resp.StatusCode != 400 {
			t.Errorf("%s: %s", query, resp.Status)
		}
	}
}

func TestRunsThatCannotBe(t *testing.T) {
	r := start(t)
	for body, word := range map[string]string{
		``: "empty", `{}`: "input", `{"input":" \n"}`: "empty", `{"input":5}`: "input", `{"input":"x","session_id":"a b"}`: "session_id",
	} {
		if resp, text := r.do(t, http.MethodPost, "/v1/runs", body); resp.StatusCode != 400 || !strings.Contains(text, word) {
			t.Errorf("%s: %s %s", body, resp.Status, text)
		}
	}
	for _, path := range []string{"/v1/runs/run_none", "/v1/runs/run_none/events", "/v1/runs/msg_1"} {
		if resp, text := r.do(t, http.MethodGet, path, ""); resp.StatusCode != 404 || !strings.Contains(text, "run_not_found") {
			t.Errorf("%s: %s %s", path, resp.Status, text)
		}
	}
	if resp, _ := r.do(t, http.MethodDelete, "/v1/runs", ""); resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, POST" {
		t.Errorf("%s %q", resp.Status, resp.Header.Get("Allow"))
	}
}
