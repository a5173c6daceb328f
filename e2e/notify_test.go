package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// told is one message of the webhook.
type told struct {
	body, signature string
	event           map[string]any
}

// receiver keeps what it is told. It listens where containers reach this machine.
type receiver struct {
	url  string
	mu   sync.Mutex
	list []told
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(bridgeAddress(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(r.take))
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

// bridgeAddress is this machine's own on the network of containers.
func bridgeAddress(t *testing.T) string {
	t.Helper()
	subnet := netip.MustParsePrefix(mustDocker(t, "network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Subnet}}"))
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && subnet.Contains(p.Addr()) {
			return p.Addr().String()
		}
	}
	t.Fatalf("no address of this machine is in %s, where containers are: %v", subnet, addresses)
	return ""
}

func (r *receiver) take(_ http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body) // half a message is no JSON
	m := told{body: string(body), signature: req.Header.Get("X-Hermes-Signature")}
	_ = json.Unmarshal(body, &m.event) // the test looks
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, m)
}

func (r *receiver) messages() []told {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

// wait returns the first message about a service that goes to a state.
func (r *receiver) wait(t *testing.T, service, to string, within time.Duration) told {
	t.Helper()
	var found told
	untilWithin(t, within, fmt.Sprintf("somebody is told that %s is %s", service, to), func() error {
		for _, m := range r.messages() {
			if m.event["service"] == service && m.event["to"] == to {
				found = m
				return nil
			}
		}
		return fmt.Errorf("there is %v", r.messages())
	})
	return found
}

// An operator who gave a webhook is told of a gateway that is parked and of its
// return, in signed messages of the documented shape, without any secret.
func TestOperatorIsToldOfParkedAndReturned(t *testing.T) {
	parallel(t)
	const secret = "sesame-signature"
	hook := newReceiver(t)
	c := gateway(t, spec{env: []string{
		"HERMES_NOTIFY_WEBHOOK_URL=" + hook.url + "/hook?token=sesame-url", "HERMES_NOTIFY_WEBHOOK_SECRET=" + secret, "API_SERVER_KEY=sesame-key",
	}})
	c.waitState("guard", "ready")
	c.mustExec("hermes", "profile", "create", "work", "--start")
	c.mustExec("sh", "-c", "echo HERMES_MODEL_API_KEY=sesame-model >>/opt/data/profiles/work/.env; echo HERMES_RETENTION_DAYS=weeks >>/opt/data/profiles/work/.env")
	if r := c.exec("hermes", "-p", "work", "gateway", "restart"); r.code != 1 {
		t.Fatalf("a wrong setting: restart exits %d: %s", r.code, r.both())
	}
	c.waitState("gateway-work", "parked")
	parked := hook.wait(t, "gateway-work", "parked", patience)
	wantMessage(t, parked, c.mustExec("hostname"))
	if from := parked.event["from"]; from != nil && from != "ready" && from != "down" { // by when it was looked at first
		t.Errorf("it was %v before", from)
	}
	if reason, _ := parked.event["reason"].(string); !strings.Contains(reason, "HERMES_RETENTION_DAYS") {
		t.Errorf("the reason does not say what is wrong: %s", parked.body)
	}

	c.mustExec("sed", "-i", "/RETENTION/d", "/opt/data/profiles/work/.env")
	c.waitState("gateway-work", "ready") // a changed configuration is tried
	// It has returned when it has served for a minute.
	back := hook.wait(t, "gateway-work", "ready", time.Minute+patience)
	wantMessage(t, back, c.mustExec("hostname"))
	if back.event["from"] != "parked" || !strings.HasPrefix(back.event["reason"].(string), "recovered; it failed for ") {
		t.Errorf("the return is told so: %s", back.body)
	}
	for _, m := range hook.messages() {
		if strings.Contains(m.body, "sesame") {
			t.Errorf("a secret is told: %s", m.body)
		}
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(m.body))
		if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); m.signature != want {
			t.Errorf("the signature is %q, want %q", m.signature, want)
		}
		if m.event["service"] != "gateway-work" {
			t.Errorf("a service that is well is told of: %s", m.body)
		}
	}
	if logs := c.logs(); strings.Contains(logs, "sesame") {
		t.Errorf("the logs hold a secret:\n%s", logs)
	}
}

// wantMessage fails unless m has the keys that docs/how-to/monitoring.md lists,
// each of its type.
func wantMessage(t *testing.T, m told, host string) {
	t.Helper()
	at, _ := m.event["at"].(string)
	when, err := time.Parse(time.RFC3339, at)
	if err == nil && (time.Since(when) > time.Hour || time.Until(when) > time.Minute) {
		err = errors.New("it is another time than now")
	}
	if err != nil || m.event["profile"] != "work" || m.event["host"] != host || len(m.event) != 7 {
		t.Errorf("not the shape of a message (%v): %s", err, m.body)
	}
}
