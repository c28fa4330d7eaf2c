package wire

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
)

// Proxy forwards connections to one server and applies rules to their messages. Make it with [Postgres] or [AMQP]; its
// methods are safe for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	protocol func() protocol
	ended    chan struct{}
	closing  sync.Once

	mu      sync.Mutex
	rules   []*armed
	refuse  bool
	open    map[net.Conn]struct{}
	workers sync.WaitGroup
}

// protocol is one connection's state in one protocol. next reads the next message off one side's stream; it is called
// by one goroutine for each side. The messages that it returns are in the order of the stream and leave out nothing.
type protocol interface {
	next(from Side, r *bufio.Reader) (*Message, error)
}

// armed is a rule that has not fired yet.
type armed struct {
	Rule
	fired chan struct{}
}

// Postgres returns a proxy to the Postgres server of a URL, and the URL that leads through it. The caller closes it.
func Postgres(through string) (*Proxy, string, error) {
	return listen(through, func() protocol { return newPostgres() })
}

// AMQP returns a proxy to the broker of a URL, and the URL that leads through it. The caller closes it.
func AMQP(through string) (*Proxy, string, error) {
	return listen(through, func() protocol { return newAMQP() })
}

func listen(through string, protocol func() protocol) (*Proxy, string, error) {
	u, err := url.Parse(through)
	if err != nil {
		return nil, "", errors.New("wire: the server's URL cannot be parsed") // the cause would quote its password
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("wire: %w", err)
	}
	p := &Proxy{listener: listener, target: u.Host, protocol: protocol, ended: make(chan struct{}), open: map[net.Conn]struct{}{}}
	p.workers.Go(p.accept)
	u.Host = listener.Addr().String()
	return p, u.String(), nil
}

// Close cuts everything and waits until nothing runs any more.
func (p *Proxy) Close() {
	p.closing.Do(func() {
		close(p.ended)
		p.listener.Close()
	})
	p.Refuse()
	p.workers.Wait()
}

// On gives the proxy a rule. The channel is closed when its message has met it and its action is done; after that the
// rule is gone.
func (p *Proxy) On(r Rule) (fired <-chan struct{}) {
	a := &armed{r, make(chan struct{})}
	a.Nth = max(1, a.Nth)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, a)
	return a.fired
}

// Refuse cuts everything, and every new connection at once, until Accept.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	p.refuse = true
	p.mu.Unlock()
	p.CutAll()
}

// Accept ends Refuse.
func (p *Proxy) Accept() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = false
}

// CutAll cuts every open connection.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			continue
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		c := &connection{proxy: p, client: client, server: server, protocol: p.protocol()}
		if !p.track(client, server) {
			c.cut()
			continue
		}
		p.workers.Go(func() { c.forward(Client, client, server) })
		p.workers.Go(func() { c.forward(Server, server, client) })
	}
}

// track notes open connections; false: none are to be open now.
func (p *Proxy) track(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.open[c] = struct{}{}
	}
	return !p.refuse
}

// matching counts a message against all rules and takes the first whose turn has come.
func (p *Proxy) matching(m *Message) *armed {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range p.rules {
		if !r.At(m) {
			continue
		}
		if r.Nth--; r.Nth == 0 {
			p.rules = slices.Delete(p.rules, i, i+1)
			return r
		}
	}
	return nil
}

// connection is one client's connection with its own to the server.
type connection struct {
	proxy          *Proxy
	client, server net.Conn
	protocol       protocol
}

func (c *connection) cut() {
	c.client.Close()
	c.server.Close()
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	delete(c.proxy.open, c.client)
	delete(c.proxy.open, c.server)
}

// forward delivers one side's messages to the other, until either end is gone. What came together is delivered together.
func (c *connection) forward(from Side, in, out net.Conn) {
	defer c.cut()
	r, w := bufio.NewReaderSize(in, 1<<16), bufio.NewWriterSize(out, 1<<16)
	defer w.Flush() // all that came before the end is delivered
	for {
		m, err := c.protocol.next(from, r)
		if err != nil {
			return
		}
		if m.answer != nil {
			if _, err := in.Write(m.answer); err != nil {
				return
			}
			continue
		}
		switch fate, err := c.meet(m, w); {
		case err != nil || fate == Severed:
			return
		case fate == Swallowed:
			continue
		}
		if _, err := w.Write(m.Raw); err != nil {
			return
		}
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
	}
}

// meet applies the rules to a message, after all that came before it was delivered.
func (c *connection) meet(m *Message, before *bufio.Writer) (Fate, error) {
	r := c.proxy.matching(m)
	if r == nil {
		return Passed, nil
	}
	if err := before.Flush(); err != nil {
		return Severed, err
	}
	m.ended = c.proxy.ended
	fate := r.Do(m)
	if fate == Severed {
		c.cut() // before anybody is told: whoever waits for the rule finds the connection gone
	}
	close(r.fired)
	return fate, nil
}
