// Package openai is a model behind any OpenAI-compatible HTTP API: OpenAI
// itself, Ollama, llama.cpp, vLLM, another hermes. It uses the official client,
// reads nothing from the environment, and keeps no conversation.
//
//	m, err := openai.New(openai.Options{BaseURL: "http://127.0.0.1:11434/v1", Model: "llama3.2"})
package openai

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	api "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/secret"
)

const (
	// DefaultBaseURL is OpenAI's own.
	DefaultBaseURL = "https://api.openai.com/v1"
	// DefaultModel is asked for when no name is set: small, and cheap to try.
	DefaultModel = "gpt-4o-mini"

	// maxRetries follows the client's own default: 429, 5xx and lost
	// connections, before the first byte of an answer.
	maxRetries = 2
	// maxRetryDelay bounds the wait that a server may ask for between two
	// tries; longer ones are the caller's to decide.
	maxRetryDelay = 5 * time.Second
	// maxReason bounds how much of a provider's message is passed on.
	maxReason = 300
)

// Options says which model, and where.
type Options struct {
	// BaseURL is where /chat/completions lies. Default DefaultBaseURL.
	BaseURL string
	// APIKey is the bearer token; local servers need none.
	APIKey secret.String
	// Model is the name to ask for. Default DefaultModel.
	Model string
	// Client makes the requests. Default http.DefaultClient.
	Client *http.Client
}

// Model implements chat.Model.
type Model struct {
	name        string
	baseURL     string
	completions api.ChatCompletionService
}

// New returns the model; it does not connect.
func New(o Options) (*Model, error) {
	base, name := o.BaseURL, o.Model
	if base == "" {
		base = DefaultBaseURL
	}
	if name == "" {
		name = DefaultModel
	}
	if base == DefaultBaseURL && !o.APIKey.IsSet() {
		return nil, errors.New("the model openai needs a key: set HERMES_MODEL_API_KEY, or HERMES_MODEL_BASE_URL to a server that needs none")
	}
	opts := []option.RequestOption{
		option.WithBaseURL(base),
		option.WithMaxRetries(maxRetries),
		option.WithMaxRetryDelay(maxRetryDelay),
	}
	if o.APIKey.IsSet() {
		opts = append(opts, option.WithAPIKey(o.APIKey.Reveal()))
	}
	if o.Client != nil {
		opts = append(opts, option.WithHTTPClient(o.Client))
	}
	// The service alone, not api.NewClient: that one would take keys and hosts
	// from the environment, and those may be another profile's.
	return &Model{name: name, baseURL: base, completions: api.NewChatCompletionService(opts...)}, nil
}

// Name returns the name the provider knows the model by.
func (m *Model) Name() string { return m.name }

// Complete streams one answer. Retries happen only before its first byte.
func (m *Model) Complete(ctx context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
	if len(req.Messages) == 0 {
		return chat.Reply{}, &chat.Error{Kind: chat.Invalid, Message: "there is no message to answer"}
	}
	if err := ctx.Err(); err != nil {
		return chat.Reply{}, err
	}
	stream := m.completions.NewStreaming(ctx, m.params(req))
	defer stream.Close()
	var text strings.Builder
	var reply chat.Reply
	for stream.Next() {
		chunk := stream.Current()
		if u := chunk.Usage; u.TotalTokens > 0 {
			reply.Usage = chat.Usage{Input: u.PromptTokens, Output: u.CompletionTokens}
		}
		for _, choice := range chunk.Choices {
			if choice.FinishReason != "" {
				reply.Finish = finish(choice.FinishReason)
			}
			if choice.Delta.Content == "" {
				continue
			}
			text.WriteString(choice.Delta.Content)
			if err := emit(choice.Delta.Content); err != nil {
				return chat.Reply{}, err
			}
		}
	}
	if err := stream.Err(); err != nil {
		return chat.Reply{}, m.explain(ctx, err)
	}
	if reply.Finish == "" { // the connection ended politely, the answer did not
		return chat.Reply{}, m.failure(chat.Unavailable, "broke off in the middle of its answer", 0, nil)
	}
	reply.Text = text.String()
	return reply, nil
}

func (m *Model) params(req chat.Request) api.ChatCompletionNewParams {
	p := api.ChatCompletionNewParams{
		Model:         m.name,
		StreamOptions: api.ChatCompletionStreamOptionsParam{IncludeUsage: param.NewOpt(true)},
	}
	for _, msg := range req.Messages {
		p.Messages = append(p.Messages, message(msg))
	}
	if req.Temperature != nil {
		p.Temperature = param.NewOpt(*req.Temperature)
	}
	if req.TopP != nil {
		p.TopP = param.NewOpt(*req.TopP)
	}
	if req.MaxTokens > 0 {
		p.MaxTokens = param.NewOpt(req.MaxTokens)
	}
	p.Stop.OfStringArray = req.Stop
	return p
}

func message(m chat.Message) api.ChatCompletionMessageParamUnion {
	switch m.Role {
	case chat.System:
		return api.SystemMessage(m.Text)
	case chat.Assistant:
		return api.AssistantMessage(m.Text)
	default:
		return api.UserMessage(m.Text)
	}
}

func finish(reason string) chat.Finish {
	switch reason {
	case "length":
		return chat.FinishLength
	case "content_filter":
		return chat.FinishFiltered
	default:
		return chat.FinishStop
	}
}

// explain gives a failure its kind.
func (m *Model) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var refused *api.Error
	if !errors.As(err, &refused) {
		return m.unreachable(err)
	}
	what := fmt.Sprintf("answered %d", refused.StatusCode)
	if refused.Message != "" {
		what += ": " + clip(refused.Message)
	}
	return m.failure(kind(refused.StatusCode), what, retryAfter(refused.Response), err)
}

// unreachable is for everything that is not an answer over HTTP: a refused or
// lost connection, an error event inside the stream, an answer that is no JSON.
func (m *Model) unreachable(err error) error {
	return m.failure(chat.Unavailable, "failed: "+clip(err.Error()), 0, err)
}

func (m *Model) failure(k chat.Kind, what string, after time.Duration, err error) error {
	return &chat.Error{Kind: k, Message: fmt.Sprintf("the model %q at %s %s", m.name, m.baseURL, what), RetryAfter: after, Err: err}
}

func kind(status int) chat.Kind {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return chat.Auth
	case status == http.StatusTooManyRequests:
		return chat.RateLimited
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status >= http.StatusInternalServerError:
		return chat.Unavailable
	default:
		return chat.Invalid
	}
}

// retryAfter reads the seconds form of Retry-After; the date form is rare and
// only a hint is lost.
func retryAfter(resp *http.Response) time.Duration {
	if resp == nil {
		return 0
	}
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// clip makes one short line of what a provider said.
func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}
