package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

const key = "e2e-key"

// served is a container whose API is published, with a key.
func served(t *testing.T, s spec) *container {
	t.Helper()
	s.flags = append(s.flags, "-p", "127.0.0.1::8642")
	s.env = append(s.env, "API_SERVER_HOST=0.0.0.0", "API_SERVER_KEY="+key)
	return gateway(t, s)
}

// chat is POST /v1/chat/completions with one message.
func chat(message, session string) request {
	body, _ := json.Marshal(map[string]any{ // plain data
		"model": "offline", "messages": []map[string]string{{"role": "user", "content": message}},
	})
	header := map[string]string{"Authorization": "Bearer " + key, "Content-Type": "application/json"}
	if session != "" {
		header["X-Hermes-Session-Id"] = session
	}
	return request{method: "POST", path: "/v1/chat/completions", body: string(body), header: header}
}

// completion is what OpenAI's clients read of an answer.
type completion struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
	Choices []struct {
		Message struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"message"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
}

func (c *container) reply(r request) string {
	c.t.Helper()
	res := c.mustAsk(8642, r)
	var got completion
	if err := json.Unmarshal([]byte(res.body), &got); err != nil || res.code != 200 {
		c.t.Fatalf("chat answers %d: %s (%v)", res.code, res.body, err)
	}
	if got.Object != "chat.completion" || got.ID == "" || got.Created == 0 || len(got.Choices) != 1 ||
		got.Choices[0].Message.Role != "assistant" || got.Choices[0].FinishReason != "stop" {
		c.t.Fatalf("not the shape of a chat completion: %s", res.body)
	}
	return got.Choices[0].Message.Content
}

func TestChatOverHTTP(t *testing.T) {
	parallel(t)
	c := served(t, spec{})
	if got := c.reply(chat("knock knock", "")); !strings.Contains(got, "knock knock") {
		t.Errorf("it answers %q", got)
	}
	models := c.mustAsk(8642, request{method: "GET", path: "/v1/models", header: withKey()})
	if models.code != 200 || !strings.Contains(models.body, `"offline"`) || !strings.Contains(models.body, `"list"`) {
		t.Errorf("/v1/models answers %d: %s", models.code, models.body)
	}
}

func TestChatStreams(t *testing.T) {
	parallel(t)
	c := served(t, spec{})
	r := chat("stream this", "")
	r.body = strings.Replace(r.body, `{`, `{"stream":true,`, 1)
	res := c.mustAsk(8642, r)
	if res.code != 200 || !strings.HasPrefix(res.header.Get("Content-Type"), "text/event-stream") ||
		!strings.Contains(res.body, "chat.completion.chunk") || !strings.HasSuffix(strings.TrimSpace(res.body), "data: [DONE]") {
		t.Errorf("a stream answers %d %v:\n%s", res.code, res.header, res.body)
	}
}

func TestSessionSurvivesRestart(t *testing.T) {
	parallel(t)
	c := served(t, spec{})
	if got := c.reply(chat("one", "diary")); !strings.Contains(got, "Turn 1 ") {
		t.Errorf("the first message is answered %q", got)
	}
	if got := c.reply(chat("two", "diary")); !strings.Contains(got, "Turn 2 ") {
		t.Errorf("the second message is answered %q", got)
	}
	mustDocker(t, "restart", c.name)
	c.waitState("gateway-default", "ready")
	if got := c.reply(chat("three", "diary")); !strings.Contains(got, "Turn 3 ") {
		t.Errorf("after the restart the third message is answered %q", got)
	}
	if got := c.reply(chat("one", "another")); !strings.Contains(got, "Turn 1 ") {
		t.Errorf("another session is answered %q", got)
	}
}

func TestProbesNeedNoKey(t *testing.T) {
	parallel(t)
	c := served(t, spec{})
	if res := c.mustAsk(8642, request{method: "GET", path: "/livez"}); res.code != 200 {
		t.Errorf("/livez answers %d: %s", res.code, res.body)
	}
	if res := c.mustAsk(8642, request{method: "GET", path: "/readyz"}); res.code != 200 || !strings.Contains(res.body, `"ready"`) {
		t.Errorf("/readyz answers %d: %s", res.code, res.body)
	}
	if res := c.mustAsk(8642, request{method: "GET", path: "/metrics"}); res.code != 401 {
		t.Errorf("/metrics without the key answers %d", res.code)
	}
	allowed := request{method: "GET", path: "/metrics", header: withKey()}
	if res := c.mustAsk(8642, allowed); res.code != 200 || !strings.Contains(res.body, "hermes_messages_received_total") {
		t.Errorf("/metrics answers %d: %s", res.code, res.body)
	}
}

// Whatever is wrong, the answer is an error that OpenAI's clients understand.
func TestBadRequestsAreAnsweredInOpenAIsShape(t *testing.T) {
	parallel(t)
	c := served(t, spec{})
	noKey, wrongKey := chat("hi", ""), chat("hi", "")
	delete(noKey.header, "Authorization")
	wrongKey.header["Authorization"] = "Bearer guess"
	broken, empty, large := chat("hi", ""), chat("hi", ""), chat(strings.Repeat("x", 40<<20), "")
	broken.body, empty.body = `{"model": "offline", "messages": [`, `{}`
	for name, tc := range map[string]struct {
		request request
		code    int
	}{
		"no key":       {noKey, 401},
		"wrong key":    {wrongKey, 401},
		"broken JSON":  {broken, 400},
		"no messages":  {empty, 400},
		"too large":    {large, 413},
		"unknown path": {request{method: "GET", path: "/v1/nothing", header: withKey()}, 404},
	} {
		res := c.mustAsk(8642, tc.request)
		var e struct {
			Error struct {
				Message string  `json:"message"`
				Type    string  `json:"type"`
				Code    *string `json:"code"`
			} `json:"error"`
		}
		if err := json.Unmarshal([]byte(res.body), &e); err != nil || res.code != tc.code || e.Error.Message == "" || e.Error.Type == "" {
			t.Errorf("%s: %d %q, want %d and an error object", name, res.code, res.body, tc.code)
		}
	}
	c.wantService("gateway-default", "ready", "up") // none of it hurt
}

// withKey is the header of a client that may.
func withKey() map[string]string { return map[string]string{"Authorization": "Bearer " + key} }

// An API that listens beyond loopback has a key, whether one was given or not.
func TestKeyIsGeneratedForAWideBind(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{flags: []string{"-p", "127.0.0.1::8642"}, env: []string{"API_SERVER_HOST=0.0.0.0"}})
	r := chat("hi", "")
	delete(r.header, "Authorization")
	if res := c.mustAsk(8642, r); res.code != 401 {
		t.Errorf("without a key it answers %d: %s", res.code, res.body)
	}
	text := c.mustExec("cat", "/opt/data/.env")
	_, generated, found := strings.Cut(text, "API_SERVER_KEY=")
	generated, _, _ = strings.Cut(generated, "\n")
	generated = strings.Trim(generated, `"'`)
	if !found || len(generated) < 20 {
		t.Fatalf("no key in .env: %q", text)
	}
	r.header["Authorization"] = "Bearer " + generated
	c.reply(r)
	if mode := c.mustExec("stat", "-c", "%a %u", "/opt/data/.env"); mode != "600 10000" {
		t.Errorf(".env has mode and owner %s", mode)
	}
	if strings.Contains(c.logs(), generated) {
		t.Error("the key is in the logs")
	}
}
