package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	sessionCookie = "hermes_session"
	// formCookie proves that a login form came from this server: a page of
	// another site can neither read nor set it.
	formCookie = "hermes_form"
	tokenField = "token"
	// maxForm bounds a login form, in bytes; formTimeout how long it may take.
	maxForm     = 4 << 10
	formTimeout = 10 * time.Second
)

func (d *Dashboard) loginPage(w http.ResponseWriter, r *http.Request) {
	if !d.needsLogin() || d.session(r) != nil {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	d.showLogin(w, r, http.StatusOK, "")
}

// showLogin sends the form with a fresh token, in the page and in a cookie.
func (d *Dashboard) showLogin(w http.ResponseWriter, r *http.Request, status int, trouble string) {
	token := rand.Text()
	http.SetCookie(w, cookie(r, formCookie, token))
	d.render(w, status, "login.html", view{Token: token, Trouble: trouble})
}

// login checks a submitted form. A failed attempt costs its address a slot of
// the limiter, taken before the check so that attempts in parallel count.
func (d *Dashboard) login(w http.ResponseWriter, r *http.Request) {
	if !d.needsLogin() {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(formTimeout))
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		d.showLogin(w, r, http.StatusBadRequest, "That form could not be read. Please try again.")
		return
	}
	if c, err := r.Cookie(formCookie); err != nil || !same(r.PostForm.Get(tokenField), c.Value) {
		d.showLogin(w, r, http.StatusForbidden, "This form was out of date. Please try again.")
		return
	}
	from := remote(r)
	if wait := d.failures.take(from, time.Now()); wait > 0 {
		seconds := int(math.Ceil(wait.Seconds()))
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		d.showLogin(w, r, http.StatusTooManyRequests, "Too many failed attempts. Try again in "+strconv.Itoa(seconds)+" s.")
		return
	}
	if !d.credentials(r.PostForm.Get("username"), r.PostForm.Get("password")) {
		d.options.Log.Warn("dashboard login refused", "from", from)
		d.showLogin(w, r, http.StatusUnauthorized, "Wrong user name or password.")
		return
	}
	d.failures.giveBack(from, time.Now())
	d.options.Log.Info("dashboard login", "from", from)
	d.forget(r)
	http.SetCookie(w, expire(cookie(r, formCookie, "")))
	http.SetCookie(w, cookie(r, sessionCookie, d.sessions.create()))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// credentials compares both, always, in a time that depends on neither.
func (d *Dashboard) credentials(username, password string) bool {
	user := same(username, d.options.Username)
	pass := same(password, d.options.Password.Reveal())
	return user && pass
}

// same compares hashes, so that not even a length shows in the time it takes.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

func (d *Dashboard) logout(w http.ResponseWriter, r *http.Request) {
	if s := sessionOf(r); s != nil {
		if !genuine(w, r, s) {
			return
		}
		d.forget(r)
		http.SetCookie(w, expire(cookie(r, sessionCookie, "")))
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// session returns the live session of a request's cookie, or nil.
func (d *Dashboard) session(r *http.Request) *session {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	return d.sessions.find(c.Value)
}

func (d *Dashboard) forget(r *http.Request) {
	if c, err := r.Cookie(sessionCookie); err == nil {
		d.sessions.remove(c.Value)
	}
}

// cookie lasts as long as the browser runs; how long it counts is decided
// here, not there. A TLS proxy in front says so in X-Forwarded-Proto.
func cookie(r *http.Request, name, value string) *http.Cookie {
	return &http.Cookie{
		Name:     name,
		Value:    value,
		Path:     "/",
		HttpOnly: true,
		SameSite: http.SameSiteStrictMode,
		Secure:   r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"),
	}
}

func expire(c *http.Cookie) *http.Cookie {
	c.MaxAge = -1
	return c
}
