package proof

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Journal is a file of one witness, a line of JSON for each thing it saw. A line is written with one call of the system
// before Write returns, so it outlives the process that wrote it, whatever kills that. Safe for concurrent use.
type Journal[T any] struct {
	mu   sync.Mutex
	file *os.File
}

// OpenJournal opens a journal for appending, and makes it if it is not there.
func OpenJournal[T any](path string) (*Journal[T], error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	return &Journal[T]{file: file}, nil
}

// Write appends entries. It panics if it cannot: a proof without its witness proves nothing.
func (j *Journal[T]) Write(entries ...T) {
	var text []byte
	for _, entry := range entries {
		line, err := json.Marshal(entry)
		if err != nil {
			panic(fmt.Sprintf("proof: a journal cannot write %v: %v", entry, err))
		}
		text = append(append(text, line...), '\n')
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(text); err != nil {
		panic(fmt.Sprintf("proof: a journal cannot be written: %v", err))
	}
}

// Close closes the file.
func (j *Journal[T]) Close() error { return j.file.Close() }

// ReadJournals reads all journals that match a pattern of filepath.Glob. A last line that its process was killed in is
// left out; nothing was done on its strength.
func ReadJournals[T any](pattern string) ([]T, error) {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	all := []T{} // not nil: this witness was there
	for _, path := range paths {
		if all, err = readJournal(all, path); err != nil {
			return nil, fmt.Errorf("proof: %s: %w", path, err)
		}
	}
	return all, nil
}

func readJournal[T any](all []T, path string) ([]T, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	var torn error
	for lines.Scan() {
		if torn != nil {
			return nil, torn // not the last line
		}
		var entry T
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			torn = fmt.Errorf("a line that is none: %w", err)
			continue
		}
		all = append(all, entry)
	}
	return all, errors.Join(lines.Err())
}
