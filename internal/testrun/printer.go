// Package testrun reads what «go test -json» says: it prints it as go test prints it without -json, and keeps a record of the
// tests that passed, against which documents that name tests are held.
package testrun

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is a line of go test -json: see go doc test2json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// Read copies the run to w as go test would print it, line by line as it comes, and returns the tests that passed. What is no JSON, like a
// linker's warning, is passed on.
func Read(from io.Reader, w io.Writer) (Record, error) {
	record := Record{}
	packages := map[string]*pkg{}
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
				e = event{Action: "build-output", Output: line}
			}
			if packages[e.Package] == nil {
				packages[e.Package] = &pkg{said: map[string]string{}, ended: map[string]string{}}
			}
			if err := packages[e.Package].take(e, w, record); err != nil {
				return record, err
			}
		}
		if errors.Is(err, io.EOF) {
			return record, nil
		} else if err != nil {
			return record, err
		}
	}
}

// pkg is what is kept of a package's run until it ends.
type pkg struct {
	tests []string          // in the order in which they began to say something
	said  map[string]string // by test; empty: the package's own
	ended map[string]string // how
}

func (p *pkg) take(e event, w io.Writer, record Record) (err error) {
	switch {
	case e.Action == "build-output":
		_, err = io.WriteString(w, e.Output)
	case e.Action == "output":
		if _, known := p.said[e.Test]; !known {
			p.tests = append(p.tests, e.Test)
		}
		p.said[e.Test] += e.Output
	case e.Action != "pass" && e.Action != "fail" && e.Action != "skip":
	case e.Test != "":
		p.ended[e.Test] = e.Action
		if e.Action == "pass" {
			record[Test{e.Package, e.Test}] = true
			delete(p.said, e.Test) // nobody reads it any more
		}
	default:
		_, err = io.WriteString(w, p.print(e.Action == "fail"))
		*p = pkg{said: map[string]string{}, ended: map[string]string{}}
	}
	return err
}

// print is what go test has to say of a package: how it ended, and if that is badly, what those tests said that failed or did not come to
// their end.
func (p *pkg) print(failed bool) string {
	var b strings.Builder
	if failed {
		slices.Sort(p.tests) // those within a test after it
		for _, test := range p.tests {
			if end := p.ended[test]; test != "" && end != "pass" && end != "skip" {
				b.WriteString(report(test, p.said[test]))
			}
		}
	}
	for line := range strings.Lines(p.said[""]) {
		if failed || strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "ok\t") || strings.HasPrefix(line, "?") || strings.HasPrefix(line, "\t") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// report puts how a test ended before what it said, as deep as it is within others.
func report(test, said string) string {
	var verdict, rest strings.Builder
	indent := strings.Repeat("    ", strings.Count(test, "/"))
	for line := range strings.Lines(said) {
		switch {
		case marker(line):
		case strings.HasPrefix(strings.TrimLeft(line, " "), "--- "):
			verdict.WriteString(indent + strings.TrimLeft(line, " "))
		default:
			rest.WriteString(indent + line)
		}
	}
	return verdict.String() + rest.String()
}

// marker reports a line with which go test -v says what it is about.
func marker(line string) bool {
	for _, word := range []string{"RUN", "PAUSE", "CONT", "NAME"} {
		if strings.HasPrefix(line, "=== "+word+" ") {
			return true
		}
	}
	return false
}

// Test names a test, or a part of one.
type Test struct{ Package, Name string }

// Record holds the tests that passed.
type Record map[Test]bool

// Write writes a record, a line for each.
func (r Record) Write(w io.Writer) error {
	var lines []string
	for t := range r {
		lines = append(lines, t.Package+" "+t.Name+"\n")
	}
	slices.Sort(lines)
	_, err := io.WriteString(w, strings.Join(lines, ""))
	return err
}

// Add reads what Write wrote.
func (r Record) Add(from io.Reader) error {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		name, test, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			return fmt.Errorf("%q is no line of a record of tests", lines.Text())
		}
		r[Test{name, test}] = true
	}
	return lines.Err()
}
