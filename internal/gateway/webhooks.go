package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/turn"
)

const (
	webhooksPath = "/webhooks/"
	// The headers of a webhook: when it was signed (Unix seconds), "sha256=" and the
	// HMAC in hexadecimal digits, and the sender's own id of the delivery, if it has
	// one. See signedText.
	webhookTime      = "X-Hermes-Timestamp"
	webhookSignature = "X-Hermes-Signature"
	webhookDelivery  = "X-Hermes-Delivery"
)

// serveWebhook accepts a message that another program sends. It is let in by its
// signature alone; the same delivery is accepted once.
func (g *Gateway) serveWebhook(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if !validSession(name) {
		g.refuseWebhook(w, http.StatusNotFound, "unknown_url", "a webhook's name is 1 to 128 of A-Z, a-z, 0-9, and . _ : -")
		return
	}
	body, err := g.readBody(w, r)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	if err := g.checkSignature(r, name, body); err != nil {
		g.refuse()
		problemOf(err).write(w)
		return
	}
	m, err := webhookMessage(r, name, body)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	kept, _, fresh, err := g.accept(r, m)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	g.writeAccepted(w, kept, fresh)
}

func (g *Gateway) refuseWebhook(w http.ResponseWriter, status int, code, message string) {
	g.refuse()
	problem{status: status, kind: "invalid_request_error", code: code, message: message}.write(w)
}

// signedText is what a signature is made of, a line each: the time, the webhook's
// name, the delivery's id (empty: none) and the very bytes of the body. The name
// and the id are in it since they decide whether a message was accepted before: a
// request that was overheard must not count as another one. Neither can have a
// line end.
func signedText(at, name, delivery string, body []byte) []byte {
	return append([]byte(at+"\n"+name+"\n"+delivery+"\n"), body...)
}

// checkSignature returns nil or an *access.Refusal that says what is wrong.
func (g *Gateway) checkSignature(r *http.Request, name string, body []byte) error {
	refuse := func(code, format string, args ...any) error {
		return &access.Refusal{Status: http.StatusUnauthorized, Code: code, Message: fmt.Sprintf(format, args...)}
	}
	if !g.o.WebhookSecret.IsSet() {
		return &access.Refusal{Status: http.StatusForbidden, Code: "no_webhook_secret", Message: "webhooks are off: set webhook.secret (WEBHOOK_SECRET) for this profile"}
	}
	text := r.Header.Get(webhookTime)
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return refuse("invalid_timestamp", "%s must be the Unix time in seconds at which the request was signed", webhookTime)
	}
	given, ok := strings.CutPrefix(r.Header.Get(webhookSignature), "sha256=")
	sum, err := hex.DecodeString(given)
	if !ok || err != nil {
		return refuse("invalid_signature", "%s must be sha256= and an HMAC in hexadecimal digits", webhookSignature)
	}
	mac := hmac.New(sha256.New, []byte(g.o.WebhookSecret.Reveal()))
	mac.Write(signedText(text, name, r.Header.Get(webhookDelivery), body))
	if !hmac.Equal(sum, mac.Sum(nil)) {
		return refuse("invalid_signature", "the signature is wrong: it must be made with webhook.secret of this profile, of four lines: %s, the webhook's name, %s and the very body", webhookTime, webhookDelivery)
	}
	if off := time.Since(time.Unix(seconds, 0)).Abs(); off > g.o.WebhookWindow {
		return refuse("stale_timestamp", "the request was signed %s from now and may be %s: it was replayed, or a clock is wrong", off.Round(time.Second), g.o.WebhookWindow)
	}
	return nil
}

// webhookMessage makes a message of a body: JSON as for /v1/runs, or plain text.
func webhookMessage(r *http.Request, name string, body []byte) (turn.Message, error) {
	session, input := "webhook-"+name, string(body)
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		req, err := decodeRun(body)
		if err != nil {
			return turn.Message{}, err
		}
		input = *req.Input
		if req.SessionID != nil {
			session = *req.SessionID
		}
	}
	switch {
	case !utf8.ValidString(input):
		return turn.Message{}, invalid("", "the body is not UTF-8 text")
	case strings.TrimSpace(input) == "":
		return turn.Message{}, invalid("", "the body is empty: there is nothing to answer")
	}
	delivery := r.Header.Get(webhookDelivery)
	if delivery == "" { // the same request replayed has the same signature
		delivery = strings.ToLower(r.Header.Get(webhookSignature)) // hexadecimal digits are the same in either case
	}
	if len(delivery) > maxKey {
		return turn.Message{}, invalid(webhookDelivery, "%s must have at most %d characters", webhookDelivery, maxKey)
	}
	return turn.Message{
		ID: "run_" + unique(), Account: "webhook/" + name, External: delivery, Session: session,
		Chat: platform.Key("http", session, ""), Sender: name,
		Ask: turn.Ask{Messages: []chat.Message{{Role: chat.User, Text: input}}},
	}, nil
}
