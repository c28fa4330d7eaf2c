package webhook_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// endpoint is a real TCP server that does with each connection what it is told to, and counts what it got.
type endpoint struct {
	net.Listener
	connections atomic.Int32
	requests    atomic.Int32 // of which a first line came
	mu          sync.Mutex
	header      http.Header // of the last request that was read whole
	body        []byte
}

// listen serves connections by do until the test ends; then all of them are cut.
func listen(t *testing.T, do func(e *endpoint, c net.Conn)) *endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{Listener: l}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.connections.Add(1)
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { c.Close() })()
				defer c.Close()
				do(e, c)
			})
		}
	})
	t.Cleanup(func() {
		stop()
		l.Close()
		wg.Wait()
	})
	return e
}

// read reads a whole request.
func (e *endpoint) read(c net.Conn) bool {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return false
	}
	e.requests.Add(1)
	body, err := io.ReadAll(r.Body)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.header, e.body = r.Header, body
	return err == nil
}

// says answers each request with the same bytes and closes.
func says(answer string) func(*endpoint, net.Conn) {
	return func(e *endpoint, c net.Conn) {
		if e.read(c) {
			_, _ = io.WriteString(c, answer)
		}
	}
}

// hangs keeps a connection until the other side gives up.
func hangs(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// cutsBody reads the header and cuts the connection while the body is on its way.
func cutsBody(e *endpoint, c net.Conn) {
	line, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	if err == nil && strings.HasPrefix(line, "POST") {
		e.requests.Add(1)
	}
}

// floods answers 200 with a body that does not end.
func floods(e *endpoint, c net.Conn) {
	if !e.read(c) {
		return
	}
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
	chunk := []byte(strings.Repeat("x", 64<<10))
	for {
		if _, err := c.Write(chunk); err != nil {
			return
		}
	}
}

// dawdles answers 200 with a body of which only the beginning comes.
func dawdles(e *endpoint, c net.Conn) {
	if e.read(c) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbeginning")
		hangs(c)
	}
}

// strangers is a server with a certificate that nobody knows.
func strangers(t *testing.T) *endpoint {
	t.Helper()
	known := httptest.NewTLSServer(nil)
	t.Cleanup(known.Close)
	return listen(t, func(e *endpoint, c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: known.TLS.Certificates})
		if e.read(s) {
			_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\n\r\n")
		}
	})
}

// nameServer answers for names: with each address in turn, the last one from then on. Unknown names do not exist.
func nameServer(t *testing.T, names map[string][]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		asked := map[string]int{}
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(answer(buf[:n], names, asked), from)
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// answer makes the answer to a query of one question.
func answer(query []byte, names map[string][]string, asked map[string]int) []byte {
	end := 12
	var labels []string
	for query[end] != 0 {
		labels = append(labels, string(query[end+1:end+1+int(query[end])]))
		end += 1 + int(query[end])
	}
	end += 5
	name, isA := strings.Join(labels, "."), binary.BigEndian.Uint16(query[end-4:]) == 1
	out := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, query[12:end]...)
	addresses, known := names[name]
	if !known {
		out[3] |= 3 // no such name
	} else if isA {
		address := netip.MustParseAddr(addresses[min(asked[name], len(addresses)-1)]).As4()
		asked[name]++
		out[7] = 1
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		out = append(out, address[:]...)
	}
	return out
}
