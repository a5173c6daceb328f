package gateway

import (
	"errors"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/turn"
)

// Whatever is sent: no panic, and either a turn that can be answered or a
// refusal of one line.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `{`, `[]`, `{"messages":[{"role":"user","content":"x"}]}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"stop":["a"],"n":1,"stream_options":{"include_usage":true}}`,
		`{"messages":[{"role":"assistant","content":null},{"role":"user","content":""}],"max_tokens":9,"stop":"x"}`,
		`{"messages":[{"role":"user","content":{"a":1}}]}`, "{\"messages\":[\n\n\xff]}", strings.Repeat("[", 20000),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := decode(body)
		var bad *invalidError
		if err != nil {
			if !errors.As(err, &bad) || bad.Message == "" || strings.Contains(bad.Message, "\n") {
				t.Fatalf("%q is refused with %q", body, err)
			}
			return
		}
		fresh := turn.News(req.ask(true).Messages)
		if len(fresh) == 0 || req.maxTokens() < 0 {
			t.Fatalf("%q is accepted with nothing new", body)
		}
		for _, m := range fresh {
			if m.Role != chat.User {
				t.Fatalf("%q has a new message of %q", body, m.Role)
			}
		}
	})
}
