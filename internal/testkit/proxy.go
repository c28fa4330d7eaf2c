package testkit

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Proxy stands between a client and a server and breaks the connection at a chosen request. It looks for bytes in what the
// client sends, so a Postgres client must send its statements as text (default_query_exec_mode=cache_describe).
type Proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	faults  []*fault
	refuse  bool
	open    map[net.Conn]struct{}
	workers sync.WaitGroup
}

type fault struct {
	match []byte
	lose  bool // the answer, instead of the request
	fired chan struct{}
}

// NewProxy forwards to target (host:port) until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: listener, target: target, open: map[net.Conn]struct{}{}}
	p.workers.Go(p.accept)
	t.Cleanup(func() {
		listener.Close()
		p.Refuse()
		p.workers.Wait()
	})
	return p
}

// ProxyTo returns a proxy to the server of a URL, and the URL that leads through it.
func ProxyTo(t testing.TB, through string) (*Proxy, string) {
	t.Helper()
	u, err := url.Parse(through)
	if err != nil {
		t.Fatal(err)
	}
	p := NewProxy(t, u.Host)
	u.Host = p.listener.Addr().String()
	return p, u.String()
}

// CutBefore cuts the connection of the next request that holds match, which the server then never sees. The channel is
// closed when it has happened.
func (p *Proxy) CutBefore(match string) <-chan struct{} { return p.add(match, false) }

// LoseAnswer lets the next request that holds match through, waits until the server has answered it, and cuts the
// connection instead of passing the answer on.
func (p *Proxy) LoseAnswer(match string) <-chan struct{} { return p.add(match, true) }

func (p *Proxy) add(match string, lose bool) <-chan struct{} {
	f := &fault{match: []byte(match), lose: lose, fired: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
	return f.fired
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
		if !p.track(client, server) {
			client.Close()
			server.Close()
			continue
		}
		pair := &pair{proxy: p, client: client, server: server}
		p.workers.Go(pair.requests)
		p.workers.Go(pair.answers)
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

// matching takes the first armed fault that fits a request.
func (p *Proxy) matching(request []byte) *fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, f := range p.faults {
		if bytes.Contains(request, f.match) {
			p.faults = append(p.faults[:i:i], p.faults[i+1:]...)
			return f
		}
	}
	return nil
}

// pair is one client's connection with its own to the server.
type pair struct {
	proxy          *Proxy
	client, server net.Conn

	mu     sync.Mutex
	losing *fault
}

func (c *pair) cut() {
	c.client.Close()
	c.server.Close()
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	delete(c.proxy.open, c.client)
	delete(c.proxy.open, c.server)
}

func (c *pair) requests() {
	defer c.cut()
	buf := make([]byte, 1<<20) // a request of the tests fits in one read
	for {
		n, err := c.client.Read(buf)
		if err != nil {
			return
		}
		if f := c.proxy.matching(buf[:n]); f != nil {
			if !f.lose {
				close(f.fired)
				return
			}
			c.mu.Lock()
			c.losing = f
			c.mu.Unlock()
		}
		if _, err := c.server.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (c *pair) answers() {
	defer c.cut()
	buf := make([]byte, 1<<16)
	for {
		n, err := c.server.Read(buf)
		c.mu.Lock()
		losing := c.losing
		c.mu.Unlock()
		if losing != nil && err == nil && bytes.HasSuffix(buf[:n], idle) {
			close(losing.fired)
			return
		}
		if err != nil {
			return
		}
		if _, err := c.client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// idle is the server's word that a transaction is over: ReadyForQuery, outside a transaction. What comes before it, such
// as the description of a statement that is sent for the first time, is passed on.
var idle = []byte{'Z', 0, 0, 0, 5, 'I'}
