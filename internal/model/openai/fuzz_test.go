package openai_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/model/openai"
)

// canned answers every request with the same bytes.
type canned struct {
	status int
	typ    string
	body   []byte
}

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: c.status, Status: http.StatusText(c.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {c.typ}}, Body: io.NopCloser(bytes.NewReader(c.body)),
	}, nil
}

// Whatever a server sends: no panic, and either a whole answer, which is all
// that was emitted and has an end, or a failure of one kind in one line.
func FuzzAnswer(f *testing.F) {
	const whole = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n" +
		"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
	for _, body := range []string{
		whole, strings.ReplaceAll(whole, "\n", "\r\n"), ": comment\nid: 1\n" + whole, strings.TrimSuffix(whole, "data: [DONE]\n\n"),
		whole[:60], "data: {}\n\n", "data: null\n\ndata: [DONE]\n\n", "data: {\"choices\":null}\n\n", "data:\n\n", "\xff\xfe", "",
		"{\"error\":{\"message\":\"no\",\"code\":429}}", "data: {\"error\":\"broke\"}\n\n", "event: error\ndata: {\"message\":\"x\ny\"}\n\n",
		"data: {\"choices\":[{\"delta\":{\"content\":\"\\ud800\"},\"finish_reason\":\"length\"}]}\n\n", "<html>\n502\n</html>",
	} {
		f.Add(200, body)
		f.Add(503, body)
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			return
		}
		m, err := openai.New(openai.Options{
			BaseURL: "http://model.invalid/v1", Client: &http.Client{Transport: canned{status, "text/event-stream", []byte(body)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		var emitted strings.Builder
		reply, err := m.Complete(t.Context(), chat.Request{Messages: []chat.Message{{Role: chat.User, Text: "x"}}}, func(s string) error {
			emitted.WriteString(s)
			return nil
		})
		if err == nil {
			if reply.Finish == "" || reply.Text != emitted.String() || status >= 400 {
				t.Fatalf("%d %q is the answer %+v, emitted %q", status, body, reply, emitted.String())
			}
			return
		}
		var e *chat.Error
		if !errors.As(err, &e) || e.Message == "" || len(e.Message) > 1000 || strings.ContainsAny(e.Message, "\r\n") {
			t.Fatalf("%d %q fails with %q", status, body, err)
		}
		if chat.KindOf(err) == chat.Cancelled {
			t.Fatalf("%d %q was cancelled by nobody: %v", status, body, err)
		}
	})
}
