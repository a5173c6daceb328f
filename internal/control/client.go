package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
)

// BaseURL is what requests made with HTTPClient start with: the host is a
// placeholder, the transport always dials the socket.
const BaseURL = "http://hermes"

// maxAnswer bounds what the client reads; a dump of ten thousand stacks fits.
const maxAnswer = 64 << 20

// Client talks to one control socket. It is safe for concurrent use and keeps
// no connection open between calls.
type Client struct {
	path string
	http *http.Client
	turn sync.Locker // held while a question is sent
}

// Dial returns a client of the socket at path; it connects at the first call.
func Dial(path string) *Client { return DialInTurn(path, new(sync.Mutex)) }

// DialInTurn is Dial for a process that asks hundreds: Status sends its question
// only while it holds turn, and waits for the answer without. Each call that waits
// in the kernel has a thread, and threads are never given back.
func DialInTurn(path string, turn sync.Locker) *Client {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}
	return &Client{path: path, http: &http.Client{Transport: transport}, turn: turn}
}

// HTTPClient returns a client whose every request goes to the socket, for
// BaseURL + "/v1/…". It has no timeout but its requests' contexts.
func (c *Client) HTTPClient() *http.Client { return c.http }

// Status asks the gateway what it is doing. It blocks until ctx ends if the
// gateway is deaf, and fails with ErrNoGateway if there is none.
func (c *Client) Status(ctx context.Context) (Status, error) {
	body, err := c.get(ctx, statusPath)
	if err != nil {
		return Status{}, err
	}
	var s Status
	if err := json.Unmarshal(body, &s); err != nil {
		return Status{}, fmt.Errorf("cannot read the status on %q: %w", c.path, err)
	}
	return s, nil
}

// get is call for the one question that hundreds of gateways are asked at the
// same time: a transport would start three goroutines and as many buffers for
// each.
func (c *Client) get(ctx context.Context, path string) ([]byte, error) {
	conn, err := c.send(ctx, path)
	if err != nil {
		return nil, c.explain(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer, err := receive(conn)
	if ctx.Err() != nil {
		err = ctx.Err() // not that the connection was closed
	}
	if err != nil {
		return nil, c.explain(err)
	}
	return answer, nil
}

// send connects and asks. Neither waits for the gateway: the kernel takes both.
func (c *Client) send(ctx context.Context, path string) (net.Conn, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: hermes\r\nConnection: close\r\n\r\n"); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func receive(conn net.Conn) ([]byte, error) {
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = refusal(resp, answer)
	}
	return answer, err
}

// Drain asks the gateway to finish what it has and leave; it returns when the
// gateway accepted, not when it is gone.
func (c *Client) Drain(ctx context.Context, req DrainRequest) error {
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("cannot write the drain request: %w", err)
	}
	_, err = c.call(ctx, http.MethodPost, drainPath, body)
	return err
}

// Stacks returns the stacks of every goroutine of the gateway, as text.
func (c *Client) Stacks(ctx context.Context) ([]byte, error) {
	return c.call(ctx, http.MethodGet, stacksPath, nil)
}

// CheckDatabase has the gateway check its database, which may take some
// seconds, and returns what is wrong in words.
func (c *Client) CheckDatabase(ctx context.Context) (problems []string, err error) {
	body, err := c.call(ctx, http.MethodGet, checkPath, nil)
	if err != nil {
		return nil, err
	}
	var answer checked
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("cannot read the answer on %q: %w", c.path, err)
	}
	return answer.Problems, nil
}

// Deadlock makes the gateway deaf, for tests; it refuses unless it was started
// for one.
func (c *Client) Deadlock(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodPost, deadlockPath, nil)
	return err
}

func (c *Client) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, BaseURL+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("cannot ask the gateway: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, refusal(resp, answer)
	}
	return answer, nil
}

// explain separates "nobody is there" from everything else.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w on %q", ErrNoGateway, c.path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("cannot use control socket %q: %w; run as the gateway's user or as root", c.path, os.ErrPermission)
	default:
		return fmt.Errorf("cannot ask the gateway on %q: %w", c.path, err)
	}
}

func refusal(resp *http.Response, body []byte) error {
	var e apiError
	if json.Unmarshal(body, &e) == nil && e.Error.Message != "" {
		return errors.New(e.Error.Message)
	}
	return fmt.Errorf("the gateway answered %s", resp.Status)
}
