package chaos

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// impatience is how long a person on IRC waits for an answer before the same
// number is sent again.
const impatience = 8 * time.Second

// welcome is how far the network has come when it knows who somebody is.
const welcome = "welcome"

// chatter is somebody on IRC who writes to the gateway directly, a few messages
// at a time, and goes on when all are answered.
type chatter struct {
	p    *people
	nick string
	conn net.Conn

	mu      sync.Mutex
	pending *message // sent, and the network has not said yet that it has it
	waiting map[int]bool
	news    chan struct{} // holds one: something was heard
	settled chan string   // how far the network has come: ids of sendings, or welcome
}

// irc is one person on IRC. The network between people and server never fails.
func (p *people) irc(ctx context.Context, n int) error {
	conn, err := net.Dial("tcp", p.w.ircd)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := &chatter{
		p: p, nick: fmt.Sprintf("i%d", n), conn: conn, waiting: map[int]bool{},
		news: make(chan struct{}, 1), settled: make(chan string, 16),
	}
	c.raw("NICK " + c.nick)
	c.raw("USER " + c.nick + " 0 * :" + c.nick)
	p.wg.Go(c.listen)
	c.await(ctx, welcome)
	c.talk(ctx, n)
	<-ctx.Done() // answers to what was sent again are still to come
	return nil
}

func (c *chatter) raw(line string) { fmt.Fprintf(c.conn, "%s\r\n", line) }

// listen takes what the network says, until the connection ends.
func (c *chatter) listen() {
	lines := bufio.NewScanner(c.conn)
	for lines.Scan() {
		source, rest := "", lines.Text()
		if strings.HasPrefix(rest, ":") {
			source, rest, _ = strings.Cut(rest[1:], " ")
		}
		head, trailing, _ := strings.Cut(rest, " :")
		words := strings.Fields(head)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "PING":
			c.raw("PONG :" + trailing)
		case "PONG":
			c.settled <- trailing
		case "376", "422": // the end of the message of the day, or none
			c.settled <- welcome
		case "401":
			c.bounce()
		case "PRIVMSG":
			if from, _, _ := strings.Cut(source, "!"); from == bot || strings.HasPrefix(from, bot) {
				c.hear(trailing)
			}
		}
	}
}

// bounce: the network says that there is no such nick.
func (c *chatter) bounce() {
	c.mu.Lock()
	m := c.pending
	c.mu.Unlock()
	if m != nil {
		c.p.w.ledger.change(func() { m.bounced = true })
	}
}

func (c *chatter) hear(text string) {
	if m := c.p.w.ledger.heard(c.nick, text); m != nil {
		c.mu.Lock()
		delete(c.waiting, m.number)
		c.mu.Unlock()
	}
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// say sends one number and waits until the network has taken or refused it.
func (c *chatter) say(ctx context.Context, m *message, text string) {
	c.mu.Lock()
	c.pending = m
	c.mu.Unlock()
	c.raw("PRIVMSG " + bot + " :" + text)
	c.raw("PING :" + m.id) // answered after all that the line before caused
	c.await(ctx, m.id)
}

// await waits until the network has come as far as what.
func (c *chatter) await(ctx context.Context, what string) {
	for {
		select {
		case got := <-c.settled:
			if got == what {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (c *chatter) open() (numbers []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.waiting {
		numbers = append(numbers, n)
	}
	return numbers
}

func (c *chatter) talk(ctx context.Context, n int) {
	r := c.p.rand(uint64(n))
	for number := 0; !c.p.stopped() && ctx.Err() == nil; {
		sending := 1
		var words []string // of the numbers of this burst
		first := number + 1
		for range 1 + r.IntN(3) {
			number++
			c.mu.Lock()
			c.waiting[number] = true
			c.mu.Unlock()
			m := c.p.w.ledger.send(c.nick, number, sending, false, false)
			line := text(r, m)
			words = append(words, strings.TrimSuffix(line, m.id+" hello"))
			c.say(ctx, m, line)
		}
		for ctx.Err() == nil && !c.answered(ctx) {
			sending++
			for _, k := range slices.Sorted(slices.Values(c.open())) {
				m := c.p.w.ledger.send(c.nick, k, sending, false, false)
				c.say(ctx, m, words[k-first]+m.id+" hello")
			}
		}
		c.p.pause(r, 2*time.Second)
	}
}

// answered waits until every number has an answer; false: patience ended.
func (c *chatter) answered(ctx context.Context) bool {
	patience := time.After(impatience)
	for {
		if len(c.open()) == 0 {
			return true
		}
		select {
		case <-c.news:
		case <-patience:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
