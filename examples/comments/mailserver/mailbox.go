// Package mailserver is a real SMTP server for the demo and the tests: it keeps what it takes on disk, and can be told
// to misbehave.
package mailserver

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Entry is one line of the mail log: one mail that was taken, or something else that the server did.
type Entry struct {
	Key   string    `json:"key,omitempty"` // of a mail: the Message-ID's part before the @, the sender's idempotency key
	To    string    `json:"to,omitempty"`  // as in the envelope
	At    time.Time `json:"at"`
	File  string    `json:"file,omitempty"`
	Event string    `json:"event,omitempty"` // of no mail: started, or a connection
}

// String is the entry's line in the log.
func (e Entry) String() string {
	line, err := json.Marshal(e)
	if err != nil {
		panic(err) // cannot be: a time that was now, and strings
	}
	return string(line)
}

// Mailbox keeps mails in a directory, with a log in log.jsonl. A mail is in the log when it was taken, and only then.
// Nothing is deduplicated: a mail that comes twice is there twice. Safe for concurrent use.
type Mailbox struct {
	dir string
	mu  sync.Mutex
	log *os.File
	n   int
}

// Open makes the directory if need be and opens its log.
func Open(dir string) (*Mailbox, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	before, err := ReadLog(dir)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(logFile(dir), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	b := &Mailbox{dir: dir, log: log, n: len(before)}
	return b, b.Note("started")
}

// Close closes the log.
func (b *Mailbox) Close() error { return b.log.Close() }

// Store writes a mail and then its line in the log, both synced: only after that may the server say 250.
func (b *Mailbox) Store(to string, raw []byte) error {
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("not a mail: %w", err)
	}
	key, _, _ := strings.Cut(strings.Trim(m.Header.Get("Message-Id"), "<>"), "@")
	b.mu.Lock()
	b.n++
	e := Entry{Key: key, To: to, File: fmt.Sprintf("%05d.eml", b.n)}
	b.mu.Unlock()
	if err := writeSynced(filepath.Join(b.dir, e.File), raw); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.write(e); err != nil {
		return err
	}
	return b.log.Sync()
}

// Note writes a line of no mail. Whoever looks for a mail sees by it that the log is alive.
func (b *Mailbox) Note(event string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.write(Entry{Event: event})
}

// write writes a line as of now. The caller holds the lock.
func (b *Mailbox) write(e Entry) error {
	e.At = time.Now().UTC().Truncate(time.Millisecond)
	_, err := b.log.WriteString(e.String() + "\n")
	return err
}

func writeSynced(name string, raw []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	return errors.Join(err, f.Sync(), f.Close())
}

func logFile(dir string) string { return filepath.Join(dir, LogName) }

// LogName is the log's file in a mailbox's directory.
const LogName = "log.jsonl"

// ReadLog reads the mails of a mailbox's log, also while its server runs: a last line that is not whole is not there yet.
func ReadLog(dir string) ([]Entry, error) {
	f, err := os.Open(logFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	var entries []Entry
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return entries, nil
		} else if err != nil {
			return nil, err
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("mail log, after %d mails: %w", len(entries), err)
		}
		if e.Event == "" {
			entries = append(entries, e)
		}
	}
}
