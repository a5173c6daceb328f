package gateway_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/secret"
)

// sign returns the headers of a webhook called ci.
func sign(key, body string, at time.Time) []string { return signAs(key, "", body, at) }

func signAs(key, delivery, body string, at time.Time) []string {
	stamp := fmt.Sprint(at.Unix())
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(stamp + "\nci\n" + delivery + "\n" + body))
	header := []string{"X-Hermes-Timestamp", stamp, "X-Hermes-Signature", "sha256=" + hex.EncodeToString(mac.Sum(nil))}
	if delivery != "" {
		header = append(header, "X-Hermes-Delivery", delivery)
	}
	return header
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
	other := r.run(t, http.MethodPost, "/webhooks/ci", json, 202, append(signAs("hook", "d1", json, time.Now()), "Content-Type", "application/json")...)
	if other.SessionID != "ops" {
		t.Errorf("%+v", other)
	}
	// The sender's id counts, whatever the signature.
	twice := r.run(t, http.MethodPost, "/webhooks/ci", json, 200, append(signAs("hook", "d1", json, time.Now().Add(-time.Second)), "Content-Type", "application/json")...)
	if twice.ID != other.ID {
		t.Errorf("delivered twice as %s", twice.ID)
	}
	until(t, "it is answered", func() bool {
		return r.run(t, http.MethodGet, "/v1/runs/"+made.ID, "", 200, "Authorization", "Bearer key").Status == "completed"
	})
}

// Whoever overheard a request can send it again and nothing else: not as another
// delivery, and not to another name.
func TestWebhookIsNoOtherMessageWhenItIsReplayed(t *testing.T) {
	r := start(t, func(o *gateway.Options) { o.WebhookSecret = secret.New("hook") })
	const body = "pay 100"
	for name, header := range map[string][]string{"with an id": signAs("hook", "d1", body, time.Now()), "without": sign("hook", body, time.Now())} {
		made := r.run(t, http.MethodPost, "/webhooks/ci", body, 202, header...)
		if again := r.run(t, http.MethodPost, "/webhooks/ci", body, 200, header...); again.ID != made.ID {
			t.Errorf("%s: a replay made %s", name, again.ID)
		}
		shouted := slices.Clone(header)
		shouted[3] = "sha256=" + strings.ToUpper(strings.TrimPrefix(header[3], "sha256="))
		if again := r.run(t, http.MethodPost, "/webhooks/ci", body, 200, shouted...); again.ID != made.ID {
			t.Errorf("%s: a replay in capitals made %s", name, again.ID)
		}
		as := append(slices.Clone(header[:4]), "X-Hermes-Delivery", "d2")
		if resp, text := r.do(t, http.MethodPost, "/webhooks/ci", body, as...); resp.StatusCode != 401 || !strings.Contains(text, "invalid_signature") {
			t.Errorf("%s, as another delivery: %s %s", name, resp.Status, text)
		}
		if resp, text := r.do(t, http.MethodPost, "/webhooks/cd", body, header...); resp.StatusCode != 401 || !strings.Contains(text, "invalid_signature") {
			t.Errorf("%s, to another name: %s %s", name, resp.Status, text)
		}
	}
	if n := r.metric(t, "hermes_messages_received_total"); n != 2 {
		t.Errorf("%v accepted", n)
	}
}

// Strangers who send bodies and no end to them are bounded, and take no place from
// those who use the API.
func TestWebhooksUnderWayAreBounded(t *testing.T) {
	r := start(t, func(o *gateway.Options) { o.WebhookSecret, o.MaxRequests = secret.New("hook"), 1 })
	var strangers []net.Conn
	until(t, "no more webhooks are taken", func() bool { // a stranger who comes while we ask is sent away
		conn, err := net.Dial("tcp", r.Address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		strangers = append(strangers, conn)
		fmt.Fprint(conn, "POST /webhooks/ci HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
		resp, body := r.do(t, http.MethodPost, "/webhooks/ci", "x", sign("hook", "x", time.Now())...)
		return resp.StatusCode == http.StatusServiceUnavailable && strings.Contains(body, "overloaded") && resp.Header.Get("Retry-After") != ""
	})
	if resp, body := r.do(t, http.MethodGet, "/v1/models", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("the API: %s %s", resp.Status, body)
	}
	for _, conn := range strangers {
		conn.Close()
	}
	until(t, "webhooks are taken again", func() bool {
		resp, _ := r.do(t, http.MethodPost, "/webhooks/ci", "y", sign("hook", "y", time.Now())...)
		return resp.StatusCode == http.StatusAccepted || resp.StatusCode == http.StatusOK
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
