package app

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/audit"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/model/offline"
	"github.com/hermesgw/hermes/internal/model/openai"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/platform/irc"
	"github.com/hermesgw/hermes/internal/store"
)

// engine makes what the settings say a gateway is built of, but where its API
// listens. Its errors are the configuration's.
func (p *gatewayProcess) engine(db *store.Store) (gateway.Options, error) {
	c := p.o.Config
	m := c.Model()
	model, err := newModel(m)
	if err != nil {
		return gateway.Options{}, err
	}
	fallback, err := newFallback(m.Fallback)
	if err != nil {
		return gateway.Options{}, fmt.Errorf("fallback: %w", err)
	}
	adapters, err := newAdapters(c, p.o.Log)
	if err != nil {
		return gateway.Options{}, err
	}
	limits, who, webhook := c.Limits(), c.Access(), c.Webhook()
	if m.Retries == 0 { // which is the agent's word for its default
		m.Retries = -1
	}
	return gateway.Options{
		Profile: p.o.Profile.Name, Store: db, Services: p.o.Services, Log: p.o.Log,
		Model: model, Fallback: fallback, TurnTimeout: m.Timeout, Retries: m.Retries, ContextTokens: m.ContextTokens,
		MaxAnswer: int(limits.AnswerBytes), MaxMessage: int(limits.MessageBytes), MaxRunning: limits.Running, MaxQueued: limits.Queued,
		Adapters: adapters, Pairing: who.Pairing,
		Senders: access.Senders{Allow: who.Allow, Admins: who.Admins, OnPlatform: map[string][]string{"irc": c.IRC().Allow}},
		KeepFor: time.Duration(c.Retention().Days) * 24 * time.Hour, KeepBytes: c.Retention().MaxBytes,
		Busy: string(c.Chat().Busy), Merge: c.Chat().MergeWindow,
		WebhookSecret: webhook.Secret, WebhookWindow: webhook.Window,
		Audit: func(pairs ...string) {
			audit.Append(p.o.Profile.Home, time.Now(), append([]string{"profile", p.o.Profile.Name}, pairs...)...)
		},
	}, nil
}

// newModel is the list of the models there are.
func newModel(m config.Model) (chat.Model, error) {
	switch m.Provider {
	case "", offline.Name:
		return offline.New(offline.Options{Delay: m.Delay}), nil
	case "openai":
		return openai.New(openai.Options{BaseURL: m.BaseURL, APIKey: m.APIKey, Model: m.Name})
	default:
		return nil, fmt.Errorf("there is no model provider %q; use offline or openai", m.Provider)
	}
}

// newFallback is what answers when the model does not; nil where none is set.
func newFallback(f config.Fallback) (chat.Model, error) {
	if f.Provider == "" {
		return nil, nil
	}
	return newModel(config.Model{Provider: f.Provider, BaseURL: f.BaseURL, APIKey: f.APIKey, Name: f.Name})
}

// newAdapters is the list of the accounts on chat platforms.
func newAdapters(c *config.Config, log *slog.Logger) ([]platform.Adapter, error) {
	var list []platform.Adapter
	if o := c.IRC(); o.Server != "" {
		a, err := irc.New(irc.Options{
			Server: withPort(o.Server, o.TLS), TLS: o.TLS, CAFile: o.CAFile,
			Nick: o.Nick, User: o.User, RealName: o.Realname, Channels: o.Channels,
			ServerPassword: o.Password, SASLUser: o.SASLUser, SASLPassword: o.SASLPassword, NickServPassword: o.NickServPassword,
			Logger: log,
		})
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// withPort adds IRC's usual port to a server that is named without one
// (RFC 7194 for TLS).
func withPort(server string, encrypted bool) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	port := "6667"
	if encrypted {
		port = "6697"
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), port)
}
