package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// most bounds a message, in bytes; a length beyond it is taken for a broken stream.
const most = 64 << 20

// The codes in the place of a protocol version, of messages that come before any other.
const (
	codeSSL    = 80877103
	codeGSSENC = 80877104
)

// postgres follows one connection: which text each prepared statement and portal stands for, which statements belong to
// the transaction that is being sent, and which of the server's answers is for which of the client's requests.
type postgres struct {
	started bool // the client's startup message has passed; touched by the client's side only

	mu         sync.Mutex
	statements map[string]string // prepared statement → text
	portals    map[string]string // portal → text
	explicit   bool              // between BEGIN and COMMIT
	current    []string          // statements of the transaction being sent
	sending    unit              // what the client has sent since the last Sync
	sent       []unit            // what the server has not answered yet, oldest first
	answering  bool              // the server has said that it is ready for the first time
}

// unit is all that the client sends up to a Sync, or one simple query: the server answers it with one ReadyForQuery.
type unit struct {
	commits  []string // statements of the transactions that it commits
	explicit bool     // by the word COMMIT

	// What the server has said so far: that a statement is done, that a COMMIT is, that something failed.
	done, committed, failed bool
}

// spoken reports whether the server may have said that it commits: with the word, or, outside of any BEGIN, with each
// completed statement, for it commits at the Sync behind the last.
func (u *unit) spoken() bool { return len(u.commits) > 0 && (u.committed || u.done && !u.explicit) }

func newPostgres() *postgres {
	return &postgres{statements: map[string]string{}, portals: map[string]string{}}
}

func (p *postgres) next(from Side, r *bufio.Reader) (*Message, error) {
	switch {
	case from == Server:
		return p.nextAnswer(r)
	case !p.started:
		return p.nextStartup(r)
	}
	raw, err := readPostgres(r)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &Message{From: Client, Raw: raw}
	p.request(m, raw[0], raw[5:])
	return m, nil
}

// readPostgres reads a message with a type: one byte, a length that counts itself, and the body.
func readPostgres(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(5)
	if err != nil {
		return nil, err
	}
	return readSized(r, 1, binary.BigEndian.Uint32(head[1:]))
}

// readSized reads a message of so many bytes behind its first few. It asks for memory as the bytes come, not as they
// are promised.
func readSized(r *bufio.Reader, before int, size uint32) ([]byte, error) {
	if size < 4 || size > most {
		return nil, fmt.Errorf("wire: a message of %d bytes: this is not Postgres' protocol", size)
	}
	var b bytes.Buffer
	_, err := io.CopyN(&b, r, int64(before)+int64(size))
	return b.Bytes(), err
}

// nextStartup reads the messages that have no type. Encryption is refused, so that the rest can be read.
func (p *postgres) nextStartup(r *bufio.Reader) (*Message, error) {
	head, err := r.Peek(8)
	if err != nil {
		return nil, err
	}
	raw, err := readSized(r, 0, max(8, binary.BigEndian.Uint32(head)))
	if err != nil {
		return nil, err
	}
	m := &Message{From: Client, Raw: raw}
	switch binary.BigEndian.Uint32(head[4:]) {
	case codeSSL, codeGSSENC:
		m.answer = []byte{'N'}
	default:
		p.started = true
	}
	return m, nil
}

// request follows a message of the client.
func (p *postgres) request(m *Message, kind byte, body []byte) {
	switch kind {
	case 'P': // Parse: name, text
		name, rest := cstring(body)
		p.statements[name], _ = cstring(rest)
	case 'B': // Bind: portal, name
		portal, rest := cstring(body)
		name, _ := cstring(rest)
		p.portals[portal] = p.statements[name]
	case 'C': // Close: S or P, name
		if name, _ := cstring(body[min(1, len(body)):]); len(body) > 0 && body[0] == 'S' {
			delete(p.statements, name)
		} else {
			delete(p.portals, name)
		}
	case 'E': // Execute: portal
		portal, _ := cstring(body)
		m.Statement = p.portals[portal]
		p.execute(m, m.Statement)
	case 'Q': // Query: text, perhaps of several statements
		m.Statement, _ = cstring(body)
		for text := range strings.SplitSeq(m.Statement, ";") {
			p.execute(m, text)
		}
		p.sync(m)
	case 'S', 'F':
		p.sync(m)
	}
}

// execute follows a statement's effect on the transaction.
func (p *postgres) execute(m *Message, text string) {
	switch word, rest := verb(text); word {
	case "":
	case "BEGIN", "START":
		p.explicit = true
	case "COMMIT", "END":
		p.commit(m)
		p.sending.explicit, p.explicit = true, false
	case "ROLLBACK", "ABORT":
		if to, _ := verb(rest); to != "TO" {
			p.current, p.explicit = nil, false
		}
	default:
		p.current = append(p.current, text)
	}
}

// sync ends a unit, and the transaction with it if there was no BEGIN.
func (p *postgres) sync(m *Message) {
	if !p.explicit {
		p.commit(m)
	}
	p.sent = append(p.sent, p.sending)
	p.sending = unit{}
}

func (p *postgres) commit(m *Message) {
	m.Commits = append(m.Commits, p.current...)
	p.sending.commits = append(p.sending.commits, p.current...)
	p.current = nil
}

// nextAnswer reads a message of the server, or all from the word of a commit up to its ReadyForQuery, so that no part of
// a swallowed answer arrives.
func (p *postgres) nextAnswer(r *bufio.Reader) (*Message, error) {
	m := &Message{From: Server}
	for {
		raw, err := readPostgres(r)
		if err != nil {
			return nil, err
		}
		m.Raw = append(m.Raw, raw...)
		if hold := p.answer(m, raw[0], raw[5:]); !hold {
			return m, nil
		}
	}
}

// answer follows a message of the server and reports whether it belongs together with the next one.
func (p *postgres) answer(m *Message, kind byte, body []byte) (hold bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if kind == 'Z' && !p.answering { // after the login
		p.answering = true
		return false
	}
	if len(p.sent) == 0 {
		// The unit is not complete: its client may wait for this very message before it goes on.
		p.sending.note(kind, body)
		return false
	}
	u := &p.sent[0]
	u.note(kind, body)
	if kind == 'Z' {
		if u.spoken() && !u.failed {
			m.Committed = slices.Clone(u.commits)
		}
		p.sent = p.sent[1:]
		return false
	}
	return u.spoken()
}

// note takes a message of the server into account.
func (u *unit) note(kind byte, body []byte) {
	switch kind {
	case 'C':
		tag, _ := cstring(body)
		u.done, u.committed = true, u.committed || tag == "COMMIT"
	case 'E':
		u.failed = true
	}
}

// cstring reads a string that ends with a NUL, or with the body.
func cstring(b []byte) (s string, rest []byte) {
	if before, after, ok := bytes.Cut(b, []byte{0}); ok {
		return string(before), after
	}
	return string(b), nil
}

// verb is the first word of a statement, in upper case, behind blanks and comments.
func verb(text string) (word, rest string) {
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		if !strings.HasPrefix(text, "--") {
			break
		}
		_, text, _ = strings.Cut(text, "\n")
	}
	end := strings.IndexFunc(text, func(r rune) bool { return r < 'A' || r > 'Z' && r < 'a' || r > 'z' })
	if end < 0 {
		end = len(text)
	}
	return strings.ToUpper(text[:end]), text[end:]
}
