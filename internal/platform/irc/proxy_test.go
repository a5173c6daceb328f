package irc_test

import (
	"net"
	"sync"
	"testing"
)

// proxy stands between the adapter and its server, and can be cut.
type proxy struct {
	addr string
	to   string
	l    net.Listener

	mu     sync.Mutex
	closed bool          // connections are refused
	deaf   chan struct{} // closed while bytes pass; open: they wait
	conns  map[net.Conn]bool
	copies sync.WaitGroup
	dials  int
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := make(chan struct{})
	close(open)
	p := &proxy{addr: l.Addr().String(), to: to, l: l, deaf: open, conns: map[net.Conn]bool{}}
	p.copies.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.Hear()
		p.Cut()
		p.copies.Wait()
	})
	return p
}

func (p *proxy) serve() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		p.copies.Go(func() { p.join(client) })
	}
}

func (p *proxy) join(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.dials++
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(client, server) })
	both.Go(func() { p.copy(server, client) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, client)
	delete(p.conns, server)
}

func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		deaf := p.deaf
		p.mu.Unlock()
		<-deaf
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Cut closes all connections and lets no new one be made.
func (p *proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = false
}

// Deafen lets nothing through, without a word to either side, until Hear.
func (p *proxy) Deafen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = make(chan struct{})
}

func (p *proxy) Hear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.deaf:
	default:
		close(p.deaf)
	}
}

func (p *proxy) Dials() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}
