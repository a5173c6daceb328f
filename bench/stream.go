package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/model/modelserver"
)

const (
	// streamed is how many pairs of streamed answers are compared.
	streamed = 200
	// modelPiece is how long the model takes for each piece of its answer, so that
	// a gateway that waits for the whole answer is seen.
	modelPiece = 10 * time.Millisecond
)

func firstTokenJob() job {
	return job{
		name: "firsttoken", title: "the first streamed token",
		how: fmt.Sprintf("From the request to the first event that has text, %d times in turns: asked of a scripted model server "+
			"on this machine (%s for each piece), and of the gateway, through its published port, that asks the same server.", streamed, modelPiece),
		run: func(ctx context.Context, l *lab, r *Result) error {
			model, err := serveModel()
			if err != nil {
				return err
			}
			defer model.Close()
			c := l.supervised()
			c.flags = append(c.flags, "-e", "HERMES_MODEL_PROVIDER=openai", "-e", "HERMES_MODEL_NAME=scripted",
				"-e", "HERMES_MODEL_API_KEY=bench", "-e", "HERMES_MODEL_BASE_URL="+model.url+"/v1")
			box, err := l.docker.serving(ctx, c)
			if err != nil {
				return err
			}
			gateway, direct := talkTo(box), talkTo(box)
			direct.url = model.url
			const own, through = "the model's own", "through the gateway"
			for i := range streamed {
				// One conversation for each: what the model is asked is the same for both.
				for name, t := range map[string]talker{own: direct, through: gateway} {
					took, err := t.firstToken(ctx, fmt.Sprint("stream", i))
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					r.add(name, milliseconds, millis(took))
				}
			}
			added := pairwise(r.samples(through), r.samples(own), func(x, y float64) float64 { return x - y })
			for _, d := range added {
				r.add("added", milliseconds, d)
			}
			r.claim(Claim{What: "time to the first streamed token, added to the model's own, p50", Unit: milliseconds, Floor: 15, Goal: 3, Measured: median(added)})
			return box.remove(ctx)
		},
	}
}

// modelServer is a scripted model server that containers can ask.
type modelServer struct {
	*http.Server
	url string
}

// bridge is the network interface that Docker's default network has on this machine.
const bridge = "docker0"

// serveModel starts one on the machine's address in Docker's default network.
func serveModel() (*modelServer, error) {
	wires, err := net.InterfaceByName(bridge)
	if err != nil {
		return nil, fmt.Errorf("cannot serve a model for containers on %s: %w", bridge, err)
	}
	addresses, err := wires.Addrs()
	if err != nil || len(addresses) == 0 {
		return nil, fmt.Errorf("cannot serve a model for containers: %s has no address: %w", bridge, err)
	}
	host, _, _ := strings.Cut(addresses[0].String(), "/")
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("cannot serve a model for containers: %w", err)
	}
	s := &modelServer{&http.Server{Handler: modelserver.New(modelserver.Options{Piece: modelPiece})}, "http://" + l.Addr().String()}
	go func() { _ = s.Serve(l) }() // ends with Close
	return s, nil
}

// firstToken asks for a streamed answer and returns how long its first text
// took. It reads the answer to its end, so that the next one starts in peace.
func (t talker) firstToken(ctx context.Context, session string) (time.Duration, error) {
	began := time.Now()
	resp, err := t.post(ctx, "/v1/chat/completions", `{"model":"scripted","stream":true,"messages":[{"role":"user","content":"hello"}]}`, session)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return 0, fmt.Errorf("a streamed answer begins with %s: %s", resp.Status, text)
	}
	var took time.Duration
	events := bufio.NewScanner(resp.Body)
	for events.Scan() {
		if took == 0 && hasText(events.Text()) {
			took = time.Since(began)
		}
	}
	if err := events.Err(); err != nil {
		return 0, err
	}
	if took == 0 {
		return 0, errors.New("the streamed answer has no text")
	}
	return took, nil
}

// hasText says whether a line of a stream carries text of the answer.
func hasText(line string) bool {
	data, ok := strings.CutPrefix(line, "data: ")
	var chunk struct {
		Choices []struct {
			Delta struct {
				Content string `json:"content"`
			} `json:"delta"`
		} `json:"choices"`
	}
	return ok && json.Unmarshal([]byte(data), &chunk) == nil && len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != ""
}
