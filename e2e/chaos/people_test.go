package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// longest is how many messages a conversation over HTTP has.
	longest = 100
	// ahead is how many runs a client has open at once.
	ahead = 3
	// pollEvery is how often a client asks for the state of a run.
	pollEvery = 250 * time.Millisecond
	// retryAfter is how long a client waits before it asks again.
	retryAfter = 200 * time.Millisecond
)

// client has a short patience with connecting: the gateway may be cut off.
var client = &http.Client{Transport: &http.Transport{
	DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
	MaxIdleConnsPerHost: 8,
}}

// ask sends one request and reads the answer whole.
func (w *world) ask(ctx context.Context, method, path, key, body string, header ...string) (int, string, error) {
	code, text, _, err := w.request(ctx, method, path, key, body, header...)
	return code, text, err
}

func (w *world) request(ctx context.Context, method, path, key, body string, header ...string) (int, string, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+net.JoinHostPort(w.ip, "8642")+path, strings.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return res.StatusCode, string(data), res.Header, err
}

// people write until told to stop, and then wait for what is open until ctx ends.
type people struct {
	w    *world
	seed uint64
	stop chan struct{} // closed: nobody begins anything new
	wg   sync.WaitGroup
}

func (p *people) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// rand is a source for one person: what others do does not change it.
func (p *people) rand(n uint64) *rand.Rand { return rand.New(rand.NewPCG(p.seed, n)) }

// pause is how long a person thinks, up to most.
func (p *people) pause(r *rand.Rand, most time.Duration) {
	select {
	case <-time.After(time.Duration(r.Int64N(int64(most)))):
	case <-p.stop:
	}
}

// text is a message that tells the model how to behave.
func text(r *rand.Rand, m *message) string {
	n := r.IntN(100)
	if m.refused {
		return "[[400 xall]] " + m.id + " hello"
	}
	for _, h := range habits {
		if n -= h.percent; n < 0 {
			return h.how + m.id + " hello"
		}
	}
	return m.id + " hello"
}

// habits are the model's bad ones and how many messages of a hundred meet each.
var habits = []struct {
	percent int
	how     string
}{
	{8, "[[slow 150ms]] "},
	{10, "[[slow 80ms]] "},
	{4, "[[429 1]] "},
	{4, "[[529 x2]] "},
	{4, "[[503 x2]] "},
	{5, "[[reset 3]] "},
	{4, "[[slow 60ms]] [[reset 6]] "},
	{4, "[[json]] "},
	{4, "[[error]] "},
	{3, "[[truncate 2]] "},
}

// runs is a client of /v1/runs: it has several messages open in one
// conversation, each of which it creates only when the one before was accepted.
func (p *people) runs(ctx context.Context, n int) {
	r := p.rand(uint64(n))
	for part := 0; !p.stopped(); part++ {
		chat := fmt.Sprintf("r%dx%d", n, part)
		open := make(chan struct{}, ahead)
		var polls sync.WaitGroup
		for number := 1; number <= longest && !p.stopped(); number++ {
			m := p.w.ledger.send(chat, number, 1, true, r.IntN(30) == 0)
			body := fmt.Sprintf(`{"input":%q,"session_id":%q}`, text(r, m), chat)
			if !p.create(ctx, r, m, body) {
				break
			}
			open <- struct{}{}
			again := r.IntN(4) == 0
			polls.Go(func() {
				p.poll(ctx, m)
				if again {
					p.createAgain(ctx, m, body)
				}
				<-open
			})
			p.pause(r, 600*time.Millisecond)
		}
		polls.Wait()
	}
}

// run is what a client reads of a run.
type run struct {
	ID, Status, Output string
	Error              struct{ Message string }
}

// create sends a message until it is acknowledged; false: ctx ended.
func (p *people) create(ctx context.Context, r *rand.Rand, m *message, body string) bool {
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, hurry(r))
		code, answer, err := p.w.ask(limited, http.MethodPost, "/v1/runs", m.id, body)
		cancel()
		var got run
		if err == nil && (code == http.StatusAccepted || code == http.StatusOK) && json.Unmarshal([]byte(answer), &got) == nil {
			p.w.ledger.change(func() { m.run = got.ID })
			return true
		}
		if err == nil && code < 500 {
			p.w.ledger.odd("refused", "%s: creating the run gives %d: %s", m.id, code, answer)
			return false
		}
		sleep(ctx, retryAfter)
	}
	return false
}

// hurry is how long a client waits before it hangs up: sometimes not long enough.
func hurry(r *rand.Rand) time.Duration {
	if r.IntN(5) == 0 {
		return time.Duration(1+r.IntN(50)) * time.Millisecond
	}
	return time.Duration(2000+r.IntN(4000)) * time.Millisecond
}

// poll waits for the outcome of a run that was acknowledged.
func (p *people) poll(ctx context.Context, m *message) {
	for ctx.Err() == nil {
		sleep(ctx, pollEvery)
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		code, answer, err := p.w.ask(limited, http.MethodGet, "/v1/runs/"+m.run, "", "")
		cancel()
		var got run
		switch {
		case err != nil || code >= 500 || code == http.StatusOK && json.Unmarshal([]byte(answer), &got) != nil:
		case code != http.StatusOK:
			p.w.ledger.odd("lost", "%s was acknowledged as %s, which gives %d: %s", m.id, m.run, code, answer)
			return
		case got.Status == "completed":
			p.tell(m, got.Output)
			return
		case got.Status == "failed" || got.Status == "cancelled":
			p.w.ledger.change(func() { m.failed, m.failedAt = got.Error.Message, time.Now() })
			return
		}
	}
}

// createAgain asks once more under a key whose run has ended.
func (p *people) createAgain(ctx context.Context, m *message, body string) {
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	code, answer, err := p.w.ask(limited, http.MethodPost, "/v1/runs", m.id, body)
	var got run
	if err != nil || code >= 500 || json.Unmarshal([]byte(answer), &got) != nil {
		return // the gateway is away; there is nothing to compare
	}
	if got.ID != m.run {
		p.w.ledger.odd("doubled", "%s was acknowledged as %s and, under the same key, as %s", m.id, m.run, got.ID)
	}
	if got.Status == "completed" {
		p.tell(m, got.Output)
	}
}

// tell notes an answer over HTTP.
func (p *people) tell(m *message, text string) {
	if text == "" {
		p.w.ledger.odd("empty", "%s was answered with nothing", m.id)
		return
	}
	if got := p.w.ledger.heard(m.chat, text); got != m {
		p.w.ledger.odd("mixed up", "%s was answered %q", m.id, text)
	}
}

// completions is a client of /v1/chat/completions, as OpenAI's are but for the
// key: one message after the other, each until there is an outcome.
func (p *people) completions(ctx context.Context, n int) {
	r := p.rand(uint64(n))
	for part := 0; !p.stopped(); part++ {
		chat := fmt.Sprintf("c%dx%d", n, part)
		for number := 1; number <= longest && !p.stopped() && ctx.Err() == nil; number++ {
			m := p.w.ledger.send(chat, number, 1, true, r.IntN(30) == 0)
			stream := r.IntN(3) == 0
			body := fmt.Sprintf(`{"model":"scripted","stream":%v,"messages":[{"role":"user","content":%q}]}`, stream, text(r, m))
			for ctx.Err() == nil && !p.complete(ctx, r, m, body) {
				sleep(ctx, retryAfter)
			}
			if r.IntN(4) == 0 {
				p.complete(ctx, r, m, body)
			}
			p.pause(r, 600*time.Millisecond)
		}
	}
}

// complete asks once; true: there is an outcome.
func (p *people) complete(ctx context.Context, r *rand.Rand, m *message, body string) bool {
	limited, cancel := context.WithTimeout(ctx, hurry(r))
	defer cancel()
	code, answer, header, err := p.w.request(limited, http.MethodPost, "/v1/chat/completions", m.id, body, "X-Hermes-Session-Id", m.chat)
	switch {
	case err != nil:
		return false
	case code == http.StatusOK:
		text, whole := content(answer)
		if whole {
			p.tell(m, text)
		}
		return whole
	case header.Get("X-Hermes-Message-Id") == "" && code < 500:
		p.w.ledger.odd("refused", "%s gives %d: %s", m.id, code, answer)
		return true
	case header.Get("X-Hermes-Message-Id") == "" || strings.Contains(answer, `"draining"`):
		return false
	}
	p.w.ledger.change(func() { m.failed, m.failedAt = answer, time.Now() })
	return true
}

// content is the text of an answer, streamed or not; whole is false where it
// breaks off.
func content(body string) (text string, whole bool) {
	var got struct{ Choices []choice }
	if !strings.HasPrefix(body, "data: ") && !strings.HasPrefix(body, ":") {
		err := json.Unmarshal([]byte(body), &got)
		return gather(got.Choices, text), err == nil
	}
	lines := bufio.NewScanner(bytes.NewBufferString(body))
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case !ok:
		case data == "[DONE]":
			return text, true
		default:
			got.Choices = nil
			if json.Unmarshal([]byte(data), &got) != nil {
				return text, false
			}
			text = gather(got.Choices, text)
		}
	}
	return text, false
}

// choice is what OpenAI's clients read, of an answer or of a piece of one.
type choice struct{ Message, Delta struct{ Content string } }

func gather(choices []choice, text string) string {
	for _, c := range choices {
		text += c.Message.Content + c.Delta.Content
	}
	return text
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
