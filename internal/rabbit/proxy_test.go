package rabbit

import (
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between a client and the broker, and can cut and hold what passes.
type proxy struct {
	listener net.Listener
	target   string
	accepted atomic.Int32

	toBroker, toClient gate

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	down  bool
	work  sync.WaitGroup
}

// gate holds bytes back while it is shut.
type gate struct {
	sync.RWMutex
	held chan struct{} // gets a token when bytes arrive at the shut gate
}

func (g *gate) pass() {
	if !g.TryRLock() {
		select {
		case g.held <- struct{}{}:
		default:
		}
		g.RLock()
	}
	g.RUnlock()
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	u, err := url.Parse(os.Getenv("AMQP_URL"))
	if err != nil {
		t.Fatal("AMQP_URL is not a URL")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: u.Host, conns: map[net.Conn]struct{}{}}
	p.toBroker.held, p.toClient.held = make(chan struct{}, 1), make(chan struct{}, 1)
	p.work.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.refuse()
		p.work.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.accepted.Add(1)
		broker, err := net.Dial("tcp", p.target)
		if err != nil || !p.add(client, broker) {
			_ = client.Close()
			if err == nil {
				_ = broker.Close()
			}
			continue
		}
		p.work.Go(func() { p.copy(broker, client, &p.toBroker) })
		p.work.Go(func() { p.copy(client, broker, &p.toClient) })
	}
}

func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return !p.down
}

func (p *proxy) copy(to, from net.Conn, g *gate) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		g.pass()
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

// refuse cuts, and ends new connections at once, until admit.
func (p *proxy) refuse() {
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.cut()
}

func (p *proxy) admit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}
