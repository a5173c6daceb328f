package gateway

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/turn"
)

// retryWhenDraining is what a client is told to wait for, in seconds: a restart
// takes about one.
const retryWhenDraining = 2

// apiError is the error shape of OpenAI.
type apiError struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// problem is an error on its way to a client.
type problem struct {
	status     int
	kind       string // OpenAI's "type"
	code       string
	param      string
	message    string
	retryAfter int // seconds; 0: none
}

func (p problem) body() apiError {
	e := apiError{Error: errorBody{Message: p.message, Type: p.kind}}
	if p.code != "" {
		e.Error.Code = &p.code
	}
	if p.param != "" {
		e.Error.Param = &p.param
	}
	return e
}

func (p problem) write(w http.ResponseWriter) {
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	writeJSON(w, p.status, p.body())
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone; nobody is left to tell
}

// problemOf finds the answer that an error deserves.
func problemOf(err error) problem {
	var bad *invalidError
	var refused *access.Refusal
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &bad):
		return problem{status: http.StatusBadRequest, kind: "invalid_request_error", code: "invalid_request", param: bad.Param, message: bad.Message}
	case errors.As(err, &refused):
		return problem{status: refused.Status, kind: accessType(refused.Status), code: refused.Code, message: refused.Message}
	case errors.As(err, &large):
		return problem{
			status: http.StatusRequestEntityTooLarge, kind: "invalid_request_error", code: "request_too_large",
			message: "the request, or a message in it, is larger than " + bytesText(large.Limit),
		}
	case errors.Is(err, turn.ErrDraining), errors.Is(err, turn.ErrLeft):
		return problem{status: http.StatusServiceUnavailable, kind: "server_error", code: "draining", message: err.Error(), retryAfter: retryWhenDraining}
	case errors.Is(err, turn.ErrFull):
		return problem{status: http.StatusServiceUnavailable, kind: "server_error", code: "overloaded", message: err.Error(), retryAfter: retryWhenDraining}
	case errors.Is(err, errDiffers):
		return problem{status: http.StatusBadGateway, kind: "server_error", code: "answer_differs", message: err.Error()}
	case errors.Is(err, turn.ErrConflict):
		return problem{status: http.StatusConflict, kind: "invalid_request_error", code: "idempotency_conflict", param: keyHeader, message: err.Error() + "; use another " + keyHeader}
	default:
		return modelProblem(err)
	}
}

// bytesText writes a limit for people.
func bytesText(n int64) string {
	if n >= 1<<20 && n%(1<<20) == 0 {
		return strconv.FormatInt(n>>20, 10) + " MiB"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

// bodyError is for a request that did not arrive whole.
func bodyError(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return invalid("", "the request did not arrive whole in time; send it again")
	default:
		return invalid("", "the request did not arrive whole: %s", err)
	}
}

func accessType(status int) string {
	if status == http.StatusUnauthorized {
		return "authentication_error"
	}
	return "permission_error"
}

// modelProblem maps the kinds of failure of a model. That the provider refuses
// our credentials is the operator's affair: 401 would make the client doubt its
// own key.
func modelProblem(err error) problem {
	p := problem{status: http.StatusBadGateway, kind: "server_error", code: "model_failed", message: err.Error()}
	switch chat.KindOf(err) {
	case chat.Invalid:
		p.status, p.kind, p.code = http.StatusBadRequest, "invalid_request_error", "model_refused"
	case chat.TooLong: // as OpenAI says it
		p.status, p.kind, p.code = http.StatusBadRequest, "invalid_request_error", "context_length_exceeded"
	case chat.Auth:
		p.code = "model_auth_failed"
	case chat.RateLimited:
		p.status, p.kind, p.code = http.StatusTooManyRequests, "rate_limit_error", "rate_limit_exceeded"
	case chat.Unavailable, chat.Cancelled:
		p.status, p.code = http.StatusServiceUnavailable, "model_unavailable"
	case chat.Failed:
	}
	var e *chat.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		p.retryAfter = int(math.Ceil(e.RetryAfter.Seconds()))
	}
	return p
}

// routes is what the HTTP port serves: all that policy lets in.
func (g *Gateway) routes(policy access.Policy) http.Handler {
	mux := http.NewServeMux()
	handle(mux, http.MethodGet, "/livez", g.serveLive)
	handle(mux, http.MethodGet, "/readyz", g.serveReady)
	handle(mux, http.MethodGet, "/metrics", g.serveMetrics)
	// Whoever reaches the port may send a body here before it is known who it is
	// from: that must take neither all memory nor a place of the API's.
	handle(mux, http.MethodPost, webhooksPath+"{name}", g.limited(g.hooks, http.HandlerFunc(g.serveWebhook)))
	mux.Handle("/", g.api)
	return g.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, webhooksPath) { // let in by a signature
			mux.ServeHTTP(w, r)
			return
		}
		if err := policy.Check(r); err != nil {
			if r.URL.Path == completionsPath || r.URL.Path == runsPath && r.Method == http.MethodPost {
				g.refuse()
			}
			problemOf(err).write(w)
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

// routesV1 is the API proper.
func (g *Gateway) routesV1() http.Handler {
	mux := http.NewServeMux()
	handle(mux, http.MethodPost, completionsPath, g.serveCompletion)
	methods(mux, runsPath, map[string]http.HandlerFunc{http.MethodPost: g.createRun, http.MethodGet: g.listRuns})
	handle(mux, http.MethodGet, runsPath+"/{id}", g.getRun)
	handle(mux, http.MethodGet, runsPath+"/{id}/events", g.streamRun)
	handle(mux, http.MethodPost, runsPath+"/{id}/stop", g.stopRun)
	handle(mux, http.MethodGet, "/v1/models", g.serveModels)
	handle(mux, http.MethodGet, "/v1/models/{id...}", g.serveModel)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem{
			status: http.StatusNotFound, kind: "invalid_request_error", code: "unknown_url",
			message: "there is nothing at " + r.Method + " " + r.URL.Path + "; see /v1/models, /v1/chat/completions and /v1/runs",
		}.write(w)
	})
	return g.guard(g.limited(g.serving, mux))
}

// limited refuses requests beyond the number that has a place at once.
func (g *Gateway) limited(places chan struct{}, h http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			h.ServeHTTP(w, r)
		default:
			g.refuse()
			problem{
				status: http.StatusServiceUnavailable, kind: "server_error", code: "overloaded", retryAfter: retryWhenDraining,
				message: "too many requests are being served; try again in a moment",
			}.write(w)
		}
	}
}

// handle serves one method at pattern and refuses the others in our shape.
func handle(mux *http.ServeMux, method, pattern string, h http.HandlerFunc) {
	methods(mux, pattern, map[string]http.HandlerFunc{method: h})
}

// guard answers 500 for a bug instead of printing a stack trace, and bounds the
// time that a body may take. net/http reads what is left of a body before it
// answers, so that holds for refused requests too.
func (g *Gateway) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(g.o.BodyTimeout))
		}
		defer func() {
			if p := recover(); p != nil {
				g.log.Error("request failed by a bug", "path", r.URL.Path, "error", p)
				problem{status: http.StatusInternalServerError, kind: "server_error", code: "internal_error", message: "internal error; see the log of the gateway"}.write(w)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

type stateBody struct {
	State  string `json:"state"`
	Reason string `json:"reason"`
}

// serveLive says that the process answers, whatever else is wrong.
func (g *Gateway) serveLive(w http.ResponseWriter, _ *http.Request) {
	state, reason, _ := g.State()
	writeJSON(w, http.StatusOK, stateBody{string(state), reason})
}

func (g *Gateway) serveReady(w http.ResponseWriter, _ *http.Request) {
	state, reason, _ := g.State()
	status := http.StatusServiceUnavailable
	if g.health.serving() {
		status = http.StatusOK
	}
	writeJSON(w, status, stateBody{string(state), reason})
}

type modelBody struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func (g *Gateway) model() modelBody {
	return modelBody{ID: g.o.Model.Name(), Object: "model", Created: g.started.Unix(), OwnedBy: "hermes"}
}

func (g *Gateway) serveModels(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []modelBody{g.model()}})
}

func (g *Gateway) serveModel(w http.ResponseWriter, r *http.Request) {
	if id := r.PathValue("id"); id != g.o.Model.Name() {
		problem{
			status: http.StatusNotFound, kind: "invalid_request_error", code: "model_not_found", param: "model",
			message: "there is no model " + strconv.Quote(id) + " here; this gateway has " + strconv.Quote(g.o.Model.Name()),
		}.write(w)
		return
	}
	writeJSON(w, http.StatusOK, g.model())
}

// writeWithin bounds the next write: a client that stopped reading must not
// hold a connection for ever.
func writeWithin(w http.ResponseWriter, d time.Duration) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d)) // not every writer can
}
