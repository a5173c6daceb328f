package modelserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/model/modelserver"
)

func start(t *testing.T, o modelserver.Options) (*modelserver.Server, string) {
	t.Helper()
	s := modelserver.New(o)
	h := httptest.NewServer(s)
	t.Cleanup(func() { s.Close(); h.Close() })
	return s, h.URL
}

// ask returns the status and body of one request, and how reading it ended.
func ask(t *testing.T, url, model, text string, stream bool) (int, string, http.Header, error) {
	t.Helper()
	body, _ := json.Marshal(map[string]any{"model": model, "stream": stream, "messages": []map[string]string{
		{"role": "system", "content": "be brief"},
		{"role": "user", "content": "before"},
		{"role": "assistant", "content": "yes"},
		{"role": "user", "content": text},
	}})
	resp, err := http.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(string(body)))
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), resp.Header, err
}

func TestAnswersTheSameEachTime(t *testing.T) {
	_, url := start(t, modelserver.Options{})
	_, first, _, _ := ask(t, url, "m", "hello there", false)
	_, second, _, _ := ask(t, url, "m", "hello there", false)
	if first != second || !strings.Contains(first, "Message 2 of this conversation. You said: hello there") {
		t.Errorf("first %s\nthen %s", first, second)
	}
	_, streamed, _, _ := ask(t, url, "m", "hello there", true)
	if !strings.Contains(streamed, `{"content":"there"}`) || !strings.HasSuffix(streamed, "data: [DONE]\n\n") {
		t.Errorf("streamed %s", streamed)
	}
}

func TestDirectivesActInOrderAndAreUsedUp(t *testing.T) {
	s, url := start(t, modelserver.Options{})
	const text = "[[429 7]] [[503 x2]] hello"
	for i, want := range []int{429, 503, 503, 200, 200} {
		status, body, header, err := ask(t, url, "m", text, true)
		if status != want || err != nil {
			t.Errorf("request %d: %d, want %d: %v", i, status, want, err)
		}
		if after := header.Get("Retry-After"); (want == 429) != (after == "7") {
			t.Errorf("request %d: Retry-After %q", i, after)
		}
		if want == 200 && strings.Contains(body, "[[") {
			t.Errorf("the answer repeats directives: %s", body)
		}
	}
	if status, _, _, _ := ask(t, url, "another", text, true); status != 429 {
		t.Errorf("another model answers %d", status)
	}
	var ends []string
	for _, seen := range s.Seen() {
		ends = append(ends, seen.End)
	}
	if got := strings.Join(ends, " "); got != "429 503 503 answered answered 429" {
		t.Errorf("ends %s", got)
	}
}

func TestTextInTheMiddleIsNoDirective(t *testing.T) {
	_, url := start(t, modelserver.Options{Script: "[[500 xall]]"})
	if status, _, _, _ := ask(t, url, "m", "user: [[503]] hello", false); status != 500 {
		t.Errorf("status %d: want the script's", status)
	}
	if status, _, _, _ := ask(t, url, "m", "[[slow 1ms]] hello", false); status != 200 {
		t.Errorf("status %d: a message's own directives come first", status)
	}
}

func TestWaysToMisbehave(t *testing.T) {
	for text, want := range map[string]string{
		"[[reset 2]] hello":    "unexpected EOF",
		"[[truncate 2]] hello": `"content":"2 "`,
		"[[json]] hello":       "{\"cont\n",
		"[[error]] hello":      `"type":"server_error"`,
		"[[empty]] hello":      `"finish_reason":"stop"`,
		"[[too_long]] hello":   "context_length_exceeded",
	} {
		_, url := start(t, modelserver.Options{})
		_, body, _, err := ask(t, url, "m", text, true)
		if err != nil {
			body = err.Error()
		}
		if !strings.Contains(body, want) {
			t.Errorf("%s gives %s", text, body)
		}
		if text != "[[empty]] hello" && strings.Contains(body, "[DONE]") {
			t.Errorf("%s gives a whole answer: %s", text, body)
		}
	}
}

func TestContextIsLimited(t *testing.T) {
	_, url := start(t, modelserver.Options{Context: 100})
	if status, _, _, _ := ask(t, url, "m", strings.Repeat("word", 50), false); status != 200 {
		t.Errorf("short: %d", status)
	}
	if status, body, _, _ := ask(t, url, "m", strings.Repeat("word", 101), false); status != 400 || !strings.Contains(body, "context_length_exceeded") {
		t.Errorf("long: %d %s", status, body)
	}
}

func TestRecordAndScriptOverHTTP(t *testing.T) {
	_, url := start(t, modelserver.Options{})
	put, _ := http.NewRequest(http.MethodPut, url+"/script", strings.NewReader("[[401 xall]]"))
	resp, err := http.DefaultClient.Do(put)
	if err != nil || resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%v, %v", resp, err)
	}
	before := time.Now()
	_, _, _, _ = ask(t, url, "m", "one", true)
	_, _, _, _ = ask(t, url, "m", "two", true)
	resp, err = http.Get(url + "/seen?from=2")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list []modelserver.Seen
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	got := list[0]
	if got.Number != 2 || got.Text != "two" || got.System != "be brief" || got.Users != 2 || got.Status != 401 || got.End != "401" || got.Time.Before(before) {
		t.Errorf("recorded %+v", got)
	}
}

// What has no end must end with the client, and be recorded so.
func TestEndlessEndsWithItsClient(t *testing.T) {
	for _, text := range []string{"[[endless]] hello", "[[silent]] hello"} {
		s, url := start(t, modelserver.Options{})
		ctx, hangUp := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions",
			strings.NewReader(`{"model":"m","stream":true,"messages":[{"role":"user","content":"`+text+`"}]}`))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}()
		until(t, func() bool { return len(s.Seen()) == 1 })
		if end := s.Seen()[0].End; end != "" {
			t.Errorf("%s ended by itself: %s", text, end)
		}
		hangUp()
		<-done
		until(t, func() bool { return s.Seen()[0].End == "gone" })
	}
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}

// A request that lay there while its client went is told from one whose client
// waits.
func TestOrphanIsSeen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := modelserver.New(modelserver.Options{})
	defer s.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	body := `{"model":"m","messages":[{"role":"user","content":"gone"}]}`
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	c.Close() // before anybody has accepted it

	server := &http.Server{Handler: s, ConnContext: modelserver.KeepConnection}
	go server.Serve(l)
	defer server.Close()
	for deadline := time.Now().Add(10 * time.Second); len(s.Seen()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the request of the client that went was not read")
		}
	}
	res, err := http.Post("http://"+l.Addr().String()+"/v1/chat/completions", "application/json", strings.NewReader(strings.ReplaceAll(body, "gone", "here")))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for _, seen := range s.Seen() {
		if seen.Orphan != (seen.Text == "gone") {
			t.Errorf("%q: orphan is %v", seen.Text, seen.Orphan)
		}
	}
}
