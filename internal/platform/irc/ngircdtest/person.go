package ngircdtest

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

// Person is somebody on the network, with a client that does nothing but
// answer pings and keep what it hears.
type Person struct {
	Nick string

	conn   net.Conn
	closed chan struct{} // nothing more is heard

	mu    sync.Mutex
	heard []ircmsg.Message
	taken int           // how many of heard Await has passed
	more  chan struct{} // closed, and made anew, when something is heard
}

// Join lets a person named nick in and joins channels, in this order. They
// leave when the test ends.
func (s *Server) Join(t testing.TB, nick string, channels ...string) *Person {
	t.Helper()
	p := &Person{Nick: nick, conn: s.dial(t), closed: make(chan struct{}), more: make(chan struct{})}
	go p.listen()
	t.Cleanup(p.Leave)
	if s.options.Password != "" {
		p.Raw("PASS " + s.options.Password)
	}
	p.Raw("NICK " + nick)
	p.Raw("USER " + nick + " 0 * :" + nick)
	p.Await(t, "the welcome of "+nick, func(m ircmsg.Message) bool { return m.Command == "376" })
	for _, c := range channels {
		p.Raw("JOIN " + c)
		p.Await(t, "joining "+c, func(m ircmsg.Message) bool { return m.Command == "JOIN" && m.Nick() == nick })
	}
	return p
}

func (s *Server) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if !s.options.TLS {
		return conn
	}
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
}

// Leave closes the connection; it may be closed already.
func (p *Person) Leave() {
	p.conn.Close()
	<-p.closed
}

// Raw sends a line as it is. That it was not sent shows in what is not heard.
func (p *Person) Raw(line string) { fmt.Fprintf(p.conn, "%s\r\n", line) }

// Say sends a message to a nick or a channel.
func (p *Person) Say(to, text string) { p.Raw("PRIVMSG " + to + " :" + text) }

func (p *Person) listen() {
	defer close(p.closed)
	lines := bufio.NewReader(p.conn)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		m, err := ircmsg.ParseLine(line)
		if err != nil {
			continue
		}
		if m.Command == "PING" {
			p.Raw("PONG :" + strings.Join(m.Params, " "))
			continue
		}
		p.mu.Lock()
		p.heard = append(p.heard, m)
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
}

// Await returns the next message, after that of the last Await, that is as
// wanted. It fails the test if none comes.
func (p *Person) Await(t testing.TB, what string, wanted func(ircmsg.Message) bool) ircmsg.Message {
	t.Helper()
	deadline := time.After(Patience)
	for {
		p.mu.Lock()
		fresh, more := p.heard[p.taken:], p.more
		i := slices.IndexFunc(fresh, wanted)
		if i >= 0 {
			p.taken += i + 1
			m := fresh[i]
			p.mu.Unlock()
			return m
		}
		p.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("%s did not hear within %s: %s; heard %v", p.Nick, Patience, what, p.Heard())
		}
	}
}

// Heard returns all that was heard so far, whatever Await has passed.
func (p *Person) Heard() []ircmsg.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.heard)
}

// Told returns the texts of the messages from nick so far, whether to the person
// or to a channel.
func (p *Person) Told(nick string) []string {
	var texts []string
	for _, m := range p.Heard() {
		if m.Command == "PRIVMSG" && m.Nick() == nick && len(m.Params) > 1 {
			texts = append(texts, m.Params[1])
		}
	}
	return texts
}
