package gateway_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/secret"
)

func sign(key, body string, at time.Time) []string {
	stamp := fmt.Sprint(at.Unix())
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(stamp + "." + body))
	return []string{"X-Hermes-Timestamp", stamp, "X-Hermes-Signature", "sha256=" + hex.EncodeToString(mac.Sum(nil))}
}

func TestWebhook(t *testing.T) {
	r := start(t, func(o *gateway.Options) {
		o.WebhookSecret, o.Key = secret.New("hook"), secret.New("key") // the key is not the webhook's
	})
	const body = "the build is broken"
	header := sign("hook", body, time.Now())
	made := r.run(t, http.MethodPost, "/webhooks/ci", body, 202, header...)
	if made.SessionID != "webhook-ci" {
		t.Errorf("%+v", made)
	}
	if again := r.run(t, http.MethodPost, "/webhooks/ci", body, 200, header...); again.ID != made.ID {
		t.Errorf("a replay made %s", again.ID)
	}
	json := `{"input":"hello","session_id":"ops"}`
	other := r.run(t, http.MethodPost, "/webhooks/ci", json, 202, append(sign("hook", json, time.Now()), "Content-Type", "application/json", "X-Hermes-Delivery", "d1")...)
	if other.SessionID != "ops" {
		t.Errorf("%+v", other)
	}
	// The sender's id counts, whatever the signature.
	twice := r.run(t, http.MethodPost, "/webhooks/ci", json, 200, append(sign("hook", json, time.Now().Add(-time.Second)), "Content-Type", "application/json", "X-Hermes-Delivery", "d1")...)
	if twice.ID != other.ID {
		t.Errorf("delivered twice as %s", twice.ID)
	}
	until(t, "it is answered", func() bool {
		return r.run(t, http.MethodGet, "/v1/runs/"+made.ID, "", 200, "Authorization", "Bearer key").Status == "completed"
	})
}

func TestWebhooksThatAreRefused(t *testing.T) {
	r := start(t, func(o *gateway.Options) { o.WebhookSecret = secret.New("hook") })
	now := time.Now()
	for name, c := range map[string]struct {
		header []string
		body   string
		status int
		code   string
	}{
		"no signature":    {nil, "x", 401, "invalid_timestamp"},
		"no HMAC":         {[]string{"X-Hermes-Timestamp", fmt.Sprint(now.Unix())}, "x", 401, "invalid_signature"},
		"another secret":  {sign("guess", "x", now), "x", 401, "invalid_signature"},
		"another body":    {sign("hook", "y", now), "x", 401, "invalid_signature"},
		"too old":         {sign("hook", "x", now.Add(-6*time.Minute)), "x", 401, "stale_timestamp"},
		"from the future": {sign("hook", "x", now.Add(6*time.Minute)), "x", 401, "stale_timestamp"},
		"empty":           {sign("hook", " ", now), " ", 400, "invalid_request"},
		"not text":        {sign("hook", "\xff", now), "\xff", 400, "invalid_request"},
	} {
		resp, body := r.do(t, http.MethodPost, "/webhooks/ci", c.body, c.header...)
		if resp.StatusCode != c.status || !strings.Contains(body, c.code) {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
	}
	if n := r.metric(t, "hermes_messages_received_total"); n != 0 {
		t.Errorf("%v accepted", n)
	}
	off := start(t)
	if resp, body := off.do(t, http.MethodPost, "/webhooks/ci", "x", sign("", "x", now)...); resp.StatusCode != 403 || !strings.Contains(body, "webhook.secret") {
		t.Errorf("without a secret: %s %s", resp.Status, body)
	}
}
