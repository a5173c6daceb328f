package dashboard

import (
	"embed"
	"encoding/json"
	"errors"
	"net/http"
	"path"

	"github.com/hermesgw/hermes/internal/access"
)

//go:embed page
var files embed.FS

// policy allows what the pages need and nothing else: no inline script or
// style, no other site, no frame around it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"

// secure sets the headers that every answer carries.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		// With no-referrer browsers send "Origin: null" with our own forms.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// guard refuses requests that other sites cause, and without a login also
// those that name this server by a name that is not loopback.
func (d *Dashboard) guard(next http.HandlerFunc) http.Handler {
	check := access.CheckLocal
	if d.needsLogin() {
		check = access.CheckOrigin
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var refused *access.Refusal
		if errors.As(check(r), &refused) {
			refuse(w, refused.Status, refused.Code, refused.Message)
			return
		}
		next(w, r)
	})
}

// private lets nobody pass without a session, if there is a login.
func (d *Dashboard) private(next http.HandlerFunc) http.HandlerFunc {
	if !d.needsLogin() {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		s := d.session(r)
		switch {
		case s != nil:
			next(w, withSession(r, s))
		case r.Method == http.MethodGet && r.URL.Path == "/":
			http.Redirect(w, r, "/login", http.StatusSeeOther)
		default:
			refuse(w, http.StatusUnauthorized, "login_required", "log in at /login first")
		}
	}
}

// refuse answers with the error shape that every API of hermes uses.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": errorBody(status, code, message)})
}

func errorBody(status int, code, message string) map[string]string {
	kind := "invalid_request_error"
	if status >= http.StatusInternalServerError {
		kind = "server_error"
	}
	return map[string]string{"message": message, "type": kind, "code": code}
}

// asset serves one embedded file; the type of a file never depends on the
// machine's own list of types.
func asset(name string) http.HandlerFunc {
	kind := map[string]string{
		".css": "text/css; charset=utf-8",
		".js":  "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
	}[path.Ext(name)]
	return func(w http.ResponseWriter, _ *http.Request) {
		data, err := files.ReadFile("page/" + name)
		if err != nil {
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(data)
	}
}
