// Package openai is a model behind any OpenAI-compatible HTTP API: OpenAI
// itself, Ollama, llama.cpp, vLLM, another hermes. It uses the official client,
// reads nothing from the environment, keeps no conversation and tries nothing
// twice: it says what kind of failure it met, and its caller decides.
//
//	m, err := openai.New(openai.Options{BaseURL: "http://127.0.0.1:11434/v1", Model: "llama3.2"})
package openai

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	api "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/secret"
)

const (
	// DefaultBaseURL is OpenAI's own.
	DefaultBaseURL = "https://api.openai.com/v1"
	// DefaultModel is asked for when no name is set: small, and cheap to try.
	DefaultModel = "gpt-4o-mini"

	// defaultFirstByte leaves a machine without a GPU the time to read a long
	// context before it says its first word.
	defaultFirstByte = 5 * time.Minute
	// defaultIdle is the longest pause inside an answer: servers send a comment
	// or a token at least every half minute, so four of them were missed.
	defaultIdle = 2 * time.Minute
	// maxReason bounds how much of a provider's message is passed on, in bytes.
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
	// FirstByte is how long an answer may take to begin. Default 5 minutes.
	FirstByte time.Duration
	// Idle is how long nothing may come once it has begun. Default 2 minutes.
	Idle time.Duration
}

// Model implements chat.Model.
type Model struct {
	name        string
	baseURL     string
	firstByte   time.Duration
	idle        time.Duration
	completions api.ChatCompletionService
}

// New returns the model; it does not connect.
func New(o Options) (*Model, error) {
	base, name := cmp.Or(o.BaseURL, DefaultBaseURL), cmp.Or(o.Model, DefaultModel)
	if base == DefaultBaseURL && !o.APIKey.IsSet() {
		return nil, errors.New("the model openai needs a key: set HERMES_MODEL_API_KEY, or HERMES_MODEL_BASE_URL to a server that needs none")
	}
	// The caller retries, and shows that it does.
	opts := []option.RequestOption{option.WithBaseURL(base), option.WithMaxRetries(0)}
	if o.APIKey.IsSet() {
		opts = append(opts, option.WithAPIKey(o.APIKey.Reveal()))
	}
	if o.Client != nil {
		opts = append(opts, option.WithHTTPClient(o.Client))
	}
	// The service alone, not api.NewClient: that one would take keys and hosts
	// from the environment, and those may be another profile's.
	return &Model{
		name: name, baseURL: base, completions: api.NewChatCompletionService(opts...),
		firstByte: cmp.Or(o.FirstByte, defaultFirstByte), idle: cmp.Or(o.Idle, defaultIdle),
	}, nil
}

// Name returns the name the provider knows the model by.
func (m *Model) Name() string { return m.name }

// Complete streams one answer; it asks once.
func (m *Model) Complete(ctx context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
	if len(req.Messages) == 0 {
		return chat.Reply{}, &chat.Error{Kind: chat.Invalid, Message: "there is no message to answer"}
	}
	if err := ctx.Err(); err != nil {
		return chat.Reply{}, err
	}
	watched, w := watch(ctx, m.firstByte, m.idle)
	defer w.stop()
	stream := m.completions.NewStreaming(watched, m.params(req), option.WithMiddleware(w.response, refuse))
	defer stream.Close()
	reply, emitErr := read(stream, emit)
	switch err := stream.Err(); {
	case emitErr != nil:
		return chat.Reply{}, emitErr
	case ctx.Err() != nil && (err != nil || reply.Finish == ""):
		return chat.Reply{}, ctx.Err()
	case w.silent():
		return chat.Reply{}, m.failure(chat.Unavailable, "failed: "+context.Cause(watched).Error(), 0, err)
	case err != nil:
		return chat.Reply{}, m.explain(err)
	case reply.Finish == "": // the connection ended politely, the answer did not
		return chat.Reply{}, m.failure(chat.Unavailable, "broke off in the middle of its answer", 0, nil)
	}
	return reply, nil
}

// read collects the stream until it ends or emit has enough.
func read(stream *ssestream.Stream[api.ChatCompletionChunk], emit func(string) error) (chat.Reply, error) {
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
