package storm

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/proof"
)

// cable leads the connections of some processes to one server, and can be cut, hung and slowed. A hung connection is half
// open: it stays, and nothing comes through, one way or both.
type cable struct {
	name     string
	listener net.Listener
	target   string
	done     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	refuse bool
	open   map[*strand]struct{}
}

// strand is one connection through the cable.
type strand struct {
	cable          *cable
	client, server net.Conn

	mu     sync.Mutex
	hung   [2]chan struct{} // by direction; closed when it goes on; nil: it goes on
	delay  time.Duration    // of each piece
	ending chan struct{}
	once   sync.Once
}

// The directions.
const (
	toServer = 0
	toClient = 1
)

// lay makes a cable to the server of a URL, and returns the URL that leads through it. tap makes, for each connection, an
// ear for what its client sends; nil: nobody listens.
func lay(name, server string, tap func() func([]byte)) (*cable, string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, "", errors.New("storm: a server's URL cannot be read") // it holds a password
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	c := &cable{name: name, listener: listener, target: u.Host, open: map[*strand]struct{}{}}
	c.done.Go(func() { c.accept(tap) })
	u.Host = listener.Addr().String()
	return c, u.String(), nil
}

func (c *cable) accept(tap func() func([]byte)) {
	for {
		client, err := c.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			continue
		}
		server, err := net.Dial("tcp", c.target)
		if err != nil {
			client.Close()
			continue
		}
		s := &strand{cable: c, client: client, server: server, ending: make(chan struct{})}
		c.mu.Lock()
		shut := c.closed || c.refuse
		if !shut {
			c.open[s] = struct{}{}
		}
		c.mu.Unlock()
		if shut {
			s.cut()
			continue
		}
		see := func([]byte) {}
		if tap != nil {
			see = tap()
		}
		c.done.Go(func() { s.pass(toServer, client, server, see) })
		c.done.Go(func() { s.pass(toClient, server, client, func([]byte) {}) })
	}
}

// pass copies one direction until either end closes, or it is cut.
func (s *strand) pass(direction int, from, to net.Conn, see func([]byte)) {
	defer s.cut()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !s.flows(direction) {
				return
			}
			see(buf[:n]) // before it is on its way
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// flows waits while the direction is hung or slow; false: it was cut.
func (s *strand) flows(direction int) bool {
	s.mu.Lock()
	hung, delay := s.hung[direction], s.delay
	s.mu.Unlock()
	if hung != nil {
		select {
		case <-hung:
		case <-s.ending:
			return false
		}
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ending:
			return false
		}
	}
	return true
}

func (s *strand) cut() {
	s.once.Do(func() {
		close(s.ending)
		s.client.Close()
		s.server.Close()
		s.cable.mu.Lock()
		defer s.cable.mu.Unlock()
		delete(s.cable.open, s)
	})
}

// hang stops directions until heal.
func (s *strand) hang(directions ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range directions {
		if s.hung[d] == nil {
			s.hung[d] = make(chan struct{})
		}
	}
}

func (s *strand) slow(delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = delay
}

func (s *strand) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = 0
	for d, hung := range s.hung {
		if hung != nil {
			close(hung)
			s.hung[d] = nil
		}
	}
}

// some returns about a share of the open connections, at least one if there is one.
func (c *cable) some(dice *rand.Rand, share float64) []*strand {
	c.mu.Lock()
	defer c.mu.Unlock()
	var chosen []*strand
	for s := range c.open {
		if dice.Float64() < share {
			chosen = append(chosen, s)
		}
	}
	for s := range c.open {
		if len(chosen) == 0 {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// close cuts everything and waits until it is gone.
func (c *cable) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.listener.Close()
	for _, s := range c.some(rand.New(rand.NewPCG(0, 0)), 1) {
		s.cut()
	}
	c.done.Wait()
}

// bar cuts everything and lets nobody in, until the returned function is called.
func (c *cable) bar(dice *rand.Rand) (lift func()) {
	set := func(refuse bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.refuse = refuse
	}
	set(true)
	for _, s := range c.some(dice, 1) {
		s.cut()
	}
	return func() { set(false) }
}

// hintLine is a line of a frame, as package rabbit writes it.
var hintLine = regexp.MustCompile(`(run|recover|probe) (\d{1,10}) [a-z0-9._-]{1,100} ([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\n`)

// longestLine bounds a line, and with it what may be left over between two pieces.
const longestLine = 200

// taps collects the hints that relays send to the broker.
type taps struct {
	mu    sync.Mutex
	hints []proof.Hint
}

// listen returns the ear of one connection.
func (t *taps) listen() func([]byte) {
	var left []byte
	return func(piece []byte) {
		now := time.Now()
		text := append(left, piece...)
		end := 0
		var found []proof.Hint
		for _, at := range hintLine.FindAllSubmatchIndex(text, -1) {
			end = at[1]
			epoch, _ := strconv.Atoi(string(text[at[4]:at[5]])) // digits, says the pattern
			id, err := uuid.ParseBytes(text[at[6]:at[7]])
			if err == nil {
				found = append(found, proof.Hint{At: now, Op: string(text[at[2]:at[3]]), Epoch: epoch, ID: id})
			}
		}
		left = append([]byte(nil), text[max(end, len(text)-longestLine):]...)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.hints = append(t.hints, found...)
	}
}

func (t *taps) all() []proof.Hint {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]proof.Hint{}, t.hints...)
}
