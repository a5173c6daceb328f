// Package ngircdtest runs a real IRC server, ngIRCd of Debian's packages, for
// tests, and people who talk on it. It is for tests only and fakes nothing.
//
//	server := ngircdtest.Start(t, ngircdtest.Options{})
//	ann := server.Join(t, "ann", "#ops")
//	ann.Say("#ops", "hermes: hello")
//	ann.Await(t, "an answer", func(m ircmsg.Message) bool { return m.Command == "PRIVMSG" })
package ngircdtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/testenv"
)

// Patience bounds every wait for what takes milliseconds on an idle machine.
const Patience = 20 * time.Second

// program is outside the PATH of users.
const program = "/usr/sbin/ngircd"

// Options say what kind of server.
type Options struct {
	TLS      bool
	Password string // that lets clients in; empty: none is asked for
	// Penalties makes clients wait that send fast, as servers on the internet do.
	Penalties bool
}

// Server is a running ngIRCd. Its address stays when it is restarted.
type Server struct {
	Addr   string // host:port
	CAFile string // vouches for the server; empty without TLS

	options Options
	config  string
	log     *lockedBuffer
	process *exec.Cmd
	ended   chan struct{}
}

// Start runs a server until the test ends. It skips (or fails) the test where
// ngircd is missing.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	testenv.Need(t, "ngircd")
	s := &Server{options: o, log: &lockedBuffer{}}
	dir := t.TempDir()
	if o.TLS {
		s.CAFile = filepath.Join(dir, "cert.pem")
		certificate(t, s.CAFile, filepath.Join(dir, "key.pem"))
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("ngircd said:\n%s", s.log)
		}
	})
	// Between the choice of a port and its use somebody else may take it.
	for range 5 {
		s.Addr = freePort(t)
		s.config = s.configure(t, dir)
		if s.start(t) {
			return s
		}
	}
	t.Fatalf("ngircd does not start; it said:\n%s", s.log)
	return nil
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *Server) configure(t testing.TB, dir string) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	var b bytes.Buffer
	fmt.Fprintf(&b, "[Global]\nName = irc.example.net\nInfo = test\nListen = 127.0.0.1\nMotdPhrase = hello\nPassword = %s\n", s.options.Password)
	fmt.Fprintf(&b, "ServerUID = %d\nServerGID = %d\n", os.Geteuid(), os.Getegid())
	if !s.options.TLS {
		fmt.Fprintf(&b, "Ports = %s\n", port)
	}
	penalty := 0
	if s.options.Penalties {
		penalty = -1
	}
	fmt.Fprintf(&b, "[Limits]\nMaxConnectionsIP = 0\nMaxNickLength = 30\nMaxPenaltyTime = %d\n", penalty)
	fmt.Fprint(&b, "[Options]\nDNS = no\nIdent = no\nPAM = no\n")
	if s.options.TLS {
		fmt.Fprintf(&b, "[SSL]\nPorts = %s\nCertFile = %s\nKeyFile = %s\n", port, s.CAFile, filepath.Join(dir, "key.pem"))
	}
	path := filepath.Join(dir, "ngircd.conf")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Restart ends the server, which says so to its clients, and starts it again.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop()
	s.Resume(t)
}

// Resume starts a server again that was stopped.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	if !s.start(t) {
		t.Fatalf("ngircd does not start again; it said:\n%s", s.log)
	}
}

// Stop ends the server; it may be ended already.
func (s *Server) Stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(Patience):
		_ = s.process.Process.Kill()
		<-s.ended
	}
	s.process = nil
}

// start says whether the server takes connections; it is ended if not.
func (s *Server) start(t testing.TB) bool {
	t.Helper()
	cmd := exec.Command(program, "-n", "-f", s.config)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.process, s.ended = cmd, make(chan struct{})
	go func() {
		defer close(s.ended)
		_ = cmd.Wait()
	}()
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); {
		if conn, err := net.Dial("tcp", s.Addr); err == nil {
			conn.Close()
			return true
		}
		select {
		case <-s.ended:
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.Stop()
	return false
}

// certificate writes one that vouches for itself, for 127.0.0.1.
func certificate(t testing.TB, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der},
		keyFile:  {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
