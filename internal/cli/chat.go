package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/unix"
)

// sessionHeader continues a conversation.
const sessionHeader = "X-Hermes-Session-Id"

// maxEvent bounds one server-sent event of an answer.
const maxEvent = 1 << 20

func newChat(o *options) *cobra.Command {
	var session string
	cmd := &cobra.Command{
		Use: "chat [MESSAGE]", Short: "Talk to a running gateway from the terminal",
		Long: `Send one message to the gateway of the profile over its control socket, which
needs no key, and print the reply as it comes. Without MESSAGE every line of
standard input is one.`,
		Example: "  hermes chat \"what is the time?\"\n  hermes -p work chat --session notes \"go on\"\n  echo hello | hermes chat",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, p, err := o.interactive()
			if err != nil {
				return err
			}
			c := conversation{
				client: control.Dial(control.SocketPath(string(s.Found.Dir), p.Name)), profile: p.Name, session: session, out: o.out,
			}
			if len(args) > 0 {
				return c.say(cmd.Context(), strings.Join(args, " "))
			}
			return c.converse(cmd.Context(), o.in)
		},
	}
	cmd.Flags().StringVar(&session, "session", "cli", "conversation to continue")
	return cmd
}

// conversation is one session with one gateway.
type conversation struct {
	client  *control.Client
	profile string
	session string
	out     io.Writer
}

// converse sends every line of in. A terminal gets a prompt.
func (c conversation) converse(ctx context.Context, in io.Reader) error {
	prompt := func() {}
	if f, ok := in.(*os.File); ok && isTerminal(f) {
		prompt = func() { fmt.Fprint(c.out, "> ") }
	}
	prompt()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if text := strings.TrimSpace(lines.Text()); text != "" {
			if err := c.say(ctx, text); err != nil {
				return err
			}
		}
		prompt()
	}
	return lines.Err()
}

func isTerminal(f *os.File) bool {
	return unix.IsTerminal(int(f.Fd()))
}

// say sends one message and prints the answer as it comes.
func (c conversation) say(ctx context.Context, text string) error {
	body, err := json.Marshal(map[string]any{
		"model": "hermes", "stream": true,
		"messages": []map[string]string{{"role": "user", "content": text}},
	})
	if err != nil {
		return fmt.Errorf("cannot write the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, control.BaseURL+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("cannot write the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(sessionHeader, c.session)
	resp, err := c.client.HTTPClient().Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refused(resp)
	}
	return c.print(resp.Body)
}

// unreachable says that nobody listens (69), or why we cannot ask.
func (c conversation) unreachable(err error) error {
	start := "hermes gateway start (or hermes gateway run)"
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return exitcode.With(exitcode.Down, fmt.Errorf("no gateway of profile %q is listening here; start one with: %s", c.profile, start))
	}
	return fmt.Errorf("cannot reach the gateway: %w", err)
}

// apiError is OpenAI's error object.
type apiError struct {
	Error struct {
		Message string `json:"message"`
	} `json:"error"`
}

func refused(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxEvent)) // a torn body is an unknown reason
	var e apiError
	if json.Unmarshal(b, &e) == nil && e.Error.Message != "" {
		return fmt.Errorf("the gateway refused: %s", e.Error.Message)
	}
	return fmt.Errorf("the gateway answered %s", resp.Status)
}

// chunk is the part of a streamed completion that is printed.
type chunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
	} `json:"choices"`
	apiError
}

// print copies the text of a stream of server-sent events to out. A stream
// that ends without [DONE] was cut.
func (c conversation) print(body io.Reader) error {
	events := bufio.NewScanner(body)
	events.Buffer(nil, maxEvent)
	for events.Scan() {
		data, ok := strings.CutPrefix(events.Text(), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			fmt.Fprintln(c.out)
			return nil
		}
		var k chunk
		if err := json.Unmarshal([]byte(data), &k); err != nil {
			return fmt.Errorf("cannot read the answer: %w", err)
		}
		if k.Error.Message != "" {
			fmt.Fprintln(c.out)
			return fmt.Errorf("the gateway failed: %s", k.Error.Message)
		}
		for _, choice := range k.Choices {
			fmt.Fprint(c.out, choice.Delta.Content)
		}
	}
	fmt.Fprintln(c.out)
	return fmt.Errorf("the answer was cut off; ask again in the same session (%w)", errors.Join(events.Err(), io.ErrUnexpectedEOF))
}
