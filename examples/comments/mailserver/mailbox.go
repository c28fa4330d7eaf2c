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

// Entry is one line of the mail log: one mail that was taken.
type Entry struct {
	Key  string    `json:"key"` // the Message-ID's part before the @: the sender's idempotency key
	To   string    `json:"to"`  // as in the envelope
	At   time.Time `json:"at"`
	File string    `json:"file"`
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
	return &Mailbox{dir: dir, log: log, n: len(before)}, nil
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
	e.At = time.Now().UTC().Truncate(time.Millisecond)
	if _, err := b.log.WriteString(e.String() + "\n"); err != nil {
		return err
	}
	return b.log.Sync()
}

func writeSynced(name string, raw []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	return errors.Join(err, f.Sync(), f.Close())
}

func logFile(dir string) string { return filepath.Join(dir, "log.jsonl") }

// ReadLog reads a mailbox's log, also while its server runs: a last line that is not whole is not there yet.
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
			return nil, fmt.Errorf("mail log, line %d: %w", len(entries)+1, err)
		}
		entries = append(entries, e)
	}
}
