package testkit

import (
	"net/url"
	"testing"

	"github.com/writhq/writ/internal/proof/wire"
)

// Proxy is a fault proxy of package wire, with names for what tests do most.
type Proxy struct{ *wire.Proxy }

// ProxyTo returns a proxy to the server of a URL, gone when the test ends, and the URL that leads through it.
func ProxyTo(t testing.TB, through string) (*Proxy, string) {
	t.Helper()
	u, err := url.Parse(through)
	if err != nil {
		t.Fatal("the server's URL cannot be parsed")
	}
	to := wire.Postgres
	if u.Scheme == "amqp" {
		to = wire.AMQP
	}
	p, through, err := to(through)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return &Proxy{p}, through
}

// CutBefore cuts the connection at the next statement that holds match, which the server then never sees. The channel is
// closed when it has happened.
func (p *Proxy) CutBefore(match string) <-chan struct{} {
	return p.On(wire.Rule{At: wire.Executes(match), Do: wire.Cut})
}

// LoseAnswer lets the next transaction with a statement that holds match be committed, and cuts the connection instead of
// passing that answer on.
func (p *Proxy) LoseAnswer(match string) <-chan struct{} {
	return p.On(wire.Rule{At: wire.Committed(match), Do: wire.Cut})
}
