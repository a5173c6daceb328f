package chaos

import (
	"net"
	"sync"
)

// wire is a TCP connection that can be cut: it passes on what comes to its
// address, until it is told to go mute or to break. It stands between the
// gateway and the IRC server.
type wire struct {
	listener net.Listener
	to       string
	wg       sync.WaitGroup

	mu    sync.Mutex
	open  map[net.Conn]bool
	mute  chan struct{} // closed: the server's words pass
	ended bool
}

func newWire(host, to string) (*wire, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	w := &wire{listener: l, to: to, open: map[net.Conn]bool{}, mute: make(chan struct{})}
	close(w.mute)
	w.wg.Go(w.accept)
	return w, nil
}

func (w *wire) address() string { return w.listener.Addr().String() }

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil {
			near.Close()
			continue
		}
		if !w.keep(near, far) {
			return
		}
		w.wg.Go(func() { w.pass(far, near, false) })
		w.wg.Go(func() { w.pass(near, far, true) })
	}
}

func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		if w.ended {
			c.Close()
		}
		w.open[c] = true
	}
	return !w.ended
}

// pass copies until one side ends; then both do.
func (w *wire) pass(to, from net.Conn, fromServer bool) {
	defer w.drop(to, from)
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		if fromServer {
			w.mu.Lock()
			mute := w.mute
			w.mu.Unlock()
			<-mute
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (w *wire) drop(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(w.open, c)
	}
}

// hold keeps what the server says until the returned function is called; what is
// said to it passes.
func (w *wire) hold() (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	mute := make(chan struct{})
	w.mute = mute
	return sync.OnceFunc(func() { close(mute) })
}

// reset breaks every connection that is open.
func (w *wire) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.open {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
}

func (w *wire) close() {
	w.listener.Close()
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.reset()
	w.wg.Wait()
}
