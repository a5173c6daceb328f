package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/turn"
)

// completionRequest is the part of OpenAI's request that means something here;
// other fields are ignored, as OpenAI's clients send more every month.
type completionRequest struct {
	Messages            []requestMessage `json:"messages"`
	Stream              bool             `json:"stream"`
	StreamOptions       *streamOptions   `json:"stream_options"`
	Temperature         *float64         `json:"temperature"`
	TopP                *float64         `json:"top_p"`
	MaxTokens           *int64           `json:"max_tokens"`
	MaxCompletionTokens *int64           `json:"max_completion_tokens"`
	Stop                texts            `json:"stop"`
	N                   *int             `json:"n"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type requestMessage struct {
	Role    string  `json:"role"`
	Content content `json:"content"`
}

// invalidError is a request that cannot be right; Param names the field.
type invalidError struct {
	Param   string
	Message string
}

func (e *invalidError) Error() string { return e.Message }

func invalid(param, format string, args ...any) error {
	return &invalidError{Param: param, Message: fmt.Sprintf(format, args...)}
}

// texts is a string or a list of strings.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(data []byte) error {
	var list []string
	if json.Unmarshal(data, &list) == nil {
		*t = list
		return nil
	}
	var one string
	if json.Unmarshal(data, &one) != nil {
		return invalid("stop", "stop must be a text or a list of texts")
	}
	*t = texts{one}
	return nil
}

// content is a text, a list of text parts, or null.
type content string

// UnmarshalJSON implements json.Unmarshaler.
func (c *content) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, (*string)(c))
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if json.Unmarshal(data, &parts) != nil {
		return invalid("messages", "the content of a message must be a text or a list of parts")
	}
	var all strings.Builder
	for _, p := range parts {
		if p.Type != "text" {
			return invalid("messages", "content parts of type %q are not supported; send type \"text\"", p.Type)
		}
		all.WriteString(p.Text)
	}
	*c = content(all.String())
	return nil
}

// decode reads a request body. Its errors are *invalidError and say where.
func decode(body []byte) (completionRequest, error) {
	var req completionRequest
	if err := decodeOne(body, &req); err != nil {
		return req, err
	}
	return req, req.check()
}

// decodeOne reads a body that is one JSON value and nothing else.
func decodeOne(body []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(into); err != nil {
		return explainJSON(body, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return invalid("", "the body goes on after the end of the JSON at %s", position(body, dec.InputOffset()))
	}
	return nil
}

func explainJSON(body []byte, err error) error {
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	var ours *invalidError
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, io.EOF):
		return invalid("", "the body is empty; send a JSON object")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("", "the JSON ends too early, at %s", position(body, int64(len(body))))
	case errors.As(err, &syntax):
		return invalid("", "the body is not JSON: %s at %s", syntax.Error(), position(body, syntax.Offset))
	case errors.As(err, &wrongType):
		return invalid(wrongType.Field, "%s must not be a JSON %s (%s)", fieldOr(wrongType.Field, "the body"),
			wrongType.Value, position(body, wrongType.Offset))
	default:
		return invalid("", "cannot read the JSON: %s", err)
	}
}

func fieldOr(field, other string) string {
	if field == "" {
		return other
	}
	return field
}

// position says where offset, counted as encoding/json does, lies in body.
func position(body []byte, offset int64) string {
	end := min(max(offset, 0), int64(len(body)))
	before := body[:end]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := int(end) - (bytes.LastIndexByte(before, '\n') + 1)
	return fmt.Sprintf("line %d, column %d", line, max(column, 1))
}

// check refuses what cannot be answered.
func (r *completionRequest) check() error {
	if len(r.Messages) == 0 {
		return invalid("messages", "messages must hold at least one message")
	}
	if r.N != nil && *r.N != 1 {
		return invalid("n", "n must be 1: this gateway gives one answer")
	}
	if limit := r.maxTokens(); limit < 0 {
		return invalid("max_tokens", "max_tokens must not be negative")
	}
	asked, visible := false, false
	for i, m := range r.Messages {
		role, err := m.role()
		if err != nil {
			return invalid(fmt.Sprintf("messages[%d].role", i), "%s", err)
		}
		switch role {
		case chat.User:
			asked, visible = true, visible || strings.TrimSpace(string(m.Content)) != ""
		case chat.Assistant:
			asked, visible = false, false
		case chat.System:
		}
	}
	switch {
	case !asked:
		return invalid("messages", "there is nothing to answer: a message of the user must follow the last of the assistant")
	case !visible:
		return invalid("messages", "there is nothing to answer: the user's message is empty")
	}
	return nil
}

func (m requestMessage) role() (chat.Role, error) {
	switch m.Role {
	case "system", "developer":
		return chat.System, nil
	case "user":
		return chat.User, nil
	case "assistant":
		return chat.Assistant, nil
	default:
		return "", fmt.Errorf("role %q is not supported; use system, developer, user or assistant", m.Role)
	}
}

func (r *completionRequest) maxTokens() int64 {
	for _, limit := range []*int64{r.MaxCompletionTokens, r.MaxTokens} {
		if limit != nil {
			return *limit
		}
	}
	return 0
}

func (r *completionRequest) includeUsage() bool {
	return r.StreamOptions != nil && r.StreamOptions.IncludeUsage
}

// ask is what r wants of the conversation; fresh: nothing can be stored of it.
func (r *completionRequest) ask(fresh bool) turn.Ask {
	a := turn.Ask{
		Fresh: fresh, Temperature: r.Temperature, TopP: r.TopP, MaxTokens: r.maxTokens(), Stop: r.Stop,
	}
	for _, m := range r.Messages {
		role, _ := m.role() // checked by decode
		msg := chat.Message{Role: role, Text: string(m.Content)}
		if role == chat.System {
			a.System = append(a.System, msg)
		} else {
			a.Messages = append(a.Messages, msg)
		}
	}
	return a
}
