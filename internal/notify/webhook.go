package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/hermesgw/hermes/internal/buildinfo"
	"github.com/hermesgw/hermes/internal/secret"
)

// SignatureHeader carries sha256= and the HMAC-SHA256 of the body in hex, keyed
// with Webhook.Secret.
const SignatureHeader = "X-Hermes-Signature"

const (
	// answerTime is how long one attempt may take, connecting included.
	answerTime = 10 * time.Second
	// maxAnswer is how much of an answer is read so that the connection can be
	// used again.
	maxAnswer = 64 << 10 // bytes
)

// pauses are the waits between the attempts of one message.
func pauses() []time.Duration { return []time.Duration{time.Second, 5 * time.Second, 25 * time.Second} }

// Webhook is where messages go. Nothing that it returns or logs holds its URL.
type Webhook struct {
	URL    secret.String // not set: there is none
	Secret secret.String // signs the messages; not set: they are not signed
	// Transport sends; nil is http.DefaultTransport.
	Transport http.RoundTripper
}

// Send posts e as JSON, four times within three quarters of a minute at most,
// until a 2xx answers. What the receiver refuses (another 4xx than 408 and 429,
// or a redirect, which is never followed) is not tried again.
func (w Webhook) Send(ctx context.Context, e Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("cannot write the message: %w", err)
	}
	for _, pause := range append(pauses(), 0) {
		var again bool
		if again, err = w.post(ctx, body); err == nil || !again || pause == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
	return err
}

// post is one attempt; again says whether another may succeed.
func (w Webhook) post(ctx context.Context, body []byte) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL.Reveal(), bytes.NewReader(body))
	if err != nil {
		return false, errors.New("the webhook's URL cannot be used") // err would repeat it
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "hermes/"+buildinfo.Get().Version)
	if w.Secret.IsSet() {
		mac := hmac.New(sha256.New, []byte(w.Secret.Reveal()))
		mac.Write(body) // a hash never fails
		req.Header.Set(SignatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	client := http.Client{Transport: w.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return true, reason(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // only the status counts
	if resp.StatusCode/100 == 2 {
		return false, nil
	}
	again = resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout
	return again, fmt.Errorf("the webhook answered %d", resp.StatusCode)
}

// reason says why a request failed, without the URL that the error repeats.
func reason(err error) error {
	var (
		outer *url.Error
		dns   *net.DNSError
		op    *net.OpError
	)
	switch {
	case errors.As(err, &outer) && outer.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the webhook did not answer within %s", answerTime)
	case errors.As(err, &dns):
		return errors.New("the webhook's host name cannot be resolved")
	case errors.As(err, &op):
		return fmt.Errorf("the webhook cannot be reached: %w", op.Err)
	case outer != nil:
		return fmt.Errorf("the webhook cannot be reached: %w", outer.Err)
	}
	return errors.New("the webhook cannot be reached")
}
