// Package irc talks with people on an IRC network: platform.Adapter over
// RFC 2812 and those extensions of IRCv3 that say who somebody is and whether a
// message went out. Parsing lines is the work of github.com/ergochat/irc-go.
//
// What IRC cannot do is not made up for: a message that arrives while there is
// no connection is lost, and one that is read but not yet committed when the
// process is killed is lost too, since the network keeps nothing and repeats
// nothing. It decides nothing about who may talk.
//
//	a, err := irc.New(irc.Options{Server: "irc.example.net:6697", TLS: true, Nick: "hermes", Channels: []string{"#ops"}})
//	err = a.Run(ctx, host)
package irc

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/secret"
	"github.com/hermesgw/hermes/internal/supervise"
)

// Options say which server, and as whom.
type Options struct {
	// Server is host:port, usually port 6697 with TLS and 6667 without.
	Server string
	// TLS encrypts, and verifies the server's certificate; there is no way not to.
	TLS bool
	// CAFile holds the certificates (PEM) that vouch for the server, in place of
	// the system's. Empty: the system's.
	CAFile string

	// Nick is the nick wished for: while it is taken the adapter goes by another.
	// User and RealName are Nick where they are empty.
	Nick, User, RealName string
	// Channels are joined and joined again: "#name", or "#name key".
	Channels []string

	// ServerPassword lets us in at all.
	ServerPassword secret.String
	// SASLUser and SASLPassword log in to an account before anything else is said.
	// A server without SASL is refused unless NickServPassword is set.
	SASLUser     string
	SASLPassword secret.String
	// NickServPassword identifies to NickServ, where SASL is not set or not there.
	NickServPassword secret.String

	Timing Timing
	// Logger is told of connections made and lost; nil: nobody is.
	Logger *slog.Logger
}

// Timing are the pauses and the patience of an adapter. Zero fields have the
// defaults that stand beside them.
type Timing struct {
	Connect time.Duration // 30 s: to connect, encrypt and be welcomed
	Ping    time.Duration // 30 s: of silence before the server is asked for life; after two questions without answer it is given up
	Confirm time.Duration // 60 s: for the server's word that it has what was sent
	Goodbye time.Duration // 1 s: to finish what is being sent, and once more to say goodbye and commit what was read

	Backoff    time.Duration // 1 s: before the second attempt to connect, doubling
	BackoffMax time.Duration // 5 min
	Refused    time.Duration // 1 min: the same after the server has refused us (a ban, a wrong password), doubling
	RefusedMax time.Duration // 30 min
	Steady     time.Duration // 1 min: of being connected, and the next pause is short again

	Regain    time.Duration // 30 s: between attempts to get the nick that was taken
	Rejoin    time.Duration // 5 s: before a channel is joined again, doubling
	RejoinMax time.Duration // 5 min

	// Line is the pause between two lines that servers bear for ever; Burst lines
	// may come before it. Solanum, InspIRCd and ngIRCd all read a line a second,
	// and more of those who were quiet. 1 s, 4 lines.
	Line  time.Duration
	Burst int
}

func (t Timing) withDefaults() Timing {
	for field, value := range map[*time.Duration]time.Duration{
		&t.Connect: 30 * time.Second, &t.Ping: 30 * time.Second, &t.Confirm: time.Minute, &t.Goodbye: time.Second,
		&t.Backoff: time.Second, &t.BackoffMax: 5 * time.Minute, &t.Refused: time.Minute, &t.RefusedMax: 30 * time.Minute,
		&t.Steady: time.Minute, &t.Regain: 30 * time.Second, &t.Rejoin: 5 * time.Second, &t.RejoinMax: 5 * time.Minute,
		&t.Line: time.Second,
	} {
		if *field == 0 {
			*field = value
		}
	}
	if t.Burst == 0 {
		t.Burst = 4
	}
	return t
}

const (
	// maxText is three or four lines: what a lost connection leaves in doubt, and
	// may have to be sent again, stays small. Code has short lines: a dozen and a few
	// are what /stop waits for, at a line a second.
	maxText  = 1200
	maxLines = 16
	// shortLine is what is left of a line for its text where all that is relayed
	// before that is long: a nick of 30 bytes, an unknown host, a channel of 50.
	shortLine = maxLine - len(":") - 30 - unseen - len(" PRIVMSG ") - 50 - len(" :") - len("\r\n")
	// backlog is how many messages wait for the gateway before reading stops.
	backlog = 64
)

// Adapter is one nick on one IRC network. Use New.
type Adapter struct {
	options  Options
	roots    *x509.CertPool
	log      *slog.Logger
	running  atomic.Bool
	session  atomic.Pointer[session] // the connection that can send; nil: none
	bucket   bucket                  // of the session's loop
	run      string                  // makes our message ids unique over restarts
	messages uint64                  // counts our message ids, of the session's loop
	told     report                  // what Host was told last, of Run's goroutine
}

type report struct {
	state  supervise.State
	reason string
}

var _ platform.Adapter = (*Adapter)(nil)

// New checks o; it does not connect.
func New(o Options) (*Adapter, error) {
	if err := check(o); err != nil {
		return nil, err
	}
	if o.User == "" {
		o.User = o.Nick
	}
	if o.RealName == "" {
		o.RealName = o.Nick
	}
	o.Timing = o.Timing.withDefaults()
	a := &Adapter{options: o, log: o.Logger, run: rand.Text()}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.bucket = bucket{pause: o.Timing.Line, burst: o.Timing.Burst, full: time.Now()}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the certificates for IRC: %w", err)
		}
		a.roots = x509.NewCertPool()
		if !a.roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cannot use %q for IRC: no certificate in it", o.CAFile)
		}
	}
	return a, nil
}

func check(o Options) error {
	host, port, err := net.SplitHostPort(o.Server)
	switch {
	case err != nil || host == "" || port == "":
		return fmt.Errorf("cannot use the IRC server %q: want host:port", o.Server)
	case !o.TLS && o.CAFile != "":
		return errors.New("cannot use certificates for IRC without TLS")
	case !word(o.Nick) || strings.ContainsAny(o.Nick, "!@*?,.#&+:$") || isDigit(o.Nick[0]) || o.Nick[0] == '-':
		return fmt.Errorf("cannot use the IRC nick %q: want letters, digits and -_[]{}\\|^`, a letter first", o.Nick)
	case o.User != "" && (!word(o.User) || strings.ContainsAny(o.User, "!@")):
		return fmt.Errorf("cannot use the IRC user name %q: no spaces, no ! and no @", o.User)
	case o.RealName != strip(o.RealName):
		return fmt.Errorf("cannot use the IRC real name %q: it has control characters", o.RealName)
	case (o.SASLUser != "") != o.SASLPassword.IsSet():
		return errors.New("cannot use SASL on IRC: it takes both a user and a password")
	}
	for name, s := range map[string]secret.String{"server": o.ServerPassword, "SASL": o.SASLPassword, "NickServ": o.NickServPassword} {
		if strings.ContainsAny(s.Reveal(), "\r\n\x00") {
			return fmt.Errorf("cannot use the %s password for IRC: it has line ends or NUL bytes", name)
		}
	}
	for _, c := range o.Channels {
		if name, key := channelKey(c); !word(name) || strings.ContainsRune(name, ',') || key != "" && (!word(key) || strings.ContainsRune(key, ',')) {
			return fmt.Errorf("cannot use the IRC channel %q: want #name, or #name key", name)
		}
	}
	return nil
}

// word says whether s can stand as a middle parameter of a line.
func word(s string) bool {
	return s != "" && s[0] != ':' && !strings.ContainsAny(s, " \r\n\x00\a") && s == strip(s)
}

func channelKey(spec string) (name, key string) {
	name, key, _ = strings.Cut(strings.TrimSpace(spec), " ")
	return name, strings.TrimSpace(key)
}

// Platform returns irc.
func (a *Adapter) Platform() string { return "irc" }

// Account returns irc/NICK@HOST:PORT, with the nick that was wished for.
func (a *Adapter) Account() string { return "irc/" + a.options.Nick + "@" + a.options.Server }

// Limits returns what servers commonly bear; lines are paced here as well.
func (a *Adapter) Limits() platform.Limits {
	t := a.options.Timing
	longest := maxText*t.Line + t.Confirm // as many lines as bytes
	// IRC shows fences as they are typed. They are mended all the same, since
	// others speak between two parts: each says what of it is code.
	return platform.Limits{Text: maxText, Line: shortLine, PerChat: t.Line, PerAccount: t.Line, Burst: t.Burst, Send: longest, Fences: true, Lines: maxLines}
}

// Run implements platform.Adapter. It returns an error only when the adapter
// runs already.
func (a *Adapter) Run(ctx context.Context, host platform.Host) error {
	if !a.running.CompareAndSwap(false, true) {
		return errors.New("cannot run the IRC adapter: it runs already")
	}
	defer a.running.Store(false)
	a.told = report{}
	inbox := make(chan platform.Inbound, backlog)
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		a.accept(ctx, host, inbox)
	}()
	pause := pauses{t: a.options.Timing}
	for ctx.Err() == nil {
		a.tell(host, supervise.Starting, "connecting to "+a.options.Server)
		began := time.Now()
		err := a.connect(ctx, host, inbox)
		if ctx.Err() != nil {
			break
		}
		wait := pause.next(err, time.Since(began))
		a.log.Warn("irc connection lost", "server", a.options.Server, "cause", err, "again_in", wait.Round(time.Millisecond))
		a.tell(host, supervise.Degraded, err.Error())
		sleep(ctx, wait)
	}
	close(inbox)
	<-accepted
	return nil
}

// accept hands messages to the gateway, one after the other, each until it is
// taken. Nobody repeats what was read: it is handed over after ctx too, for a
// while.
func (a *Adapter) accept(ctx context.Context, host platform.Host, inbox <-chan platform.Inbound) {
	grace, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		sleep(grace, 2*a.options.Timing.Goodbye)
		cancel()
	})()
	for m := range inbox {
		const first, most = 50 * time.Millisecond, 5 * time.Second
		for wait := first; ; wait = min(2*wait, most) {
			err := host.Accept(grace, m)
			if err == nil {
				break
			}
			if grace.Err() != nil {
				a.log.Warn("irc message lost: the gateway did not take it before the end", "id", m.ID, "cause", err)
				break
			}
			a.log.Warn("irc message not taken, trying again", "id", m.ID, "cause", err)
			sleep(grace, wait)
		}
	}
}

// tell reports a state that differs from the last one told.
func (a *Adapter) tell(host platform.Host, state supervise.State, reason string) {
	if r := (report{state, reason}); r != a.told {
		a.told = r
		host.Report(state, reason)
	}
}

// dial connects, and encrypts where that is wished.
func (a *Adapter) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, a.options.Timing.Connect)
	defer cancel()
	dialer := &net.Dialer{}
	if !a.options.TLS {
		return dialer.DialContext(ctx, "tcp", a.options.Server)
	}
	config := &tls.Config{RootCAs: a.roots, MinVersion: tls.VersionTLS12}
	return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", a.options.Server)
}

// show makes a text of the server fit for a report: short, printable, and
// without a password that it may repeat.
func (a *Adapter) show(text string) string {
	text = plain(text)
	for _, s := range []secret.String{a.options.ServerPassword, a.options.SASLPassword, a.options.NickServPassword} {
		if s.IsSet() {
			text = strings.ReplaceAll(text, s.Reveal(), s.String())
		}
	}
	const most = 200
	if len(text) > most {
		text, _ = cut(text, most)
		text += " …"
	}
	return text
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
