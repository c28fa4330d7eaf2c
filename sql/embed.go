// Package sql holds Writ's SQL as files: the functions, triggers and views that are applied again by content hash
// after every migration, the engine's statements, and the documented status queries for people.
package sql

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

//go:embed *.sql statements/*.sql queries/*.sql
var files embed.FS

// order is how the repeatable files depend on each other; roles comes last, because it grants on all the rest.
var order = []string{"identity", "create", "guard", "log", "verbs", "bulk", "quarantine", "status", "probe", "limits", "why", "triage", "kinds", "merge", "events", "flow", "roles"}

// File is one repeatable file.
type File struct {
	Name string
	Text string
	Hash string // of the text, hex
}

// Repeatable returns the functions, triggers, views and grants in the order in which they must be applied.
func Repeatable() []File {
	out := make([]File, 0, len(order))
	for _, name := range order {
		text := read(name + ".sql")
		sum := sha256.Sum256([]byte(text))
		out = append(out, File{Name: name, Text: text, Hash: hex.EncodeToString(sum[:])})
	}
	return out
}

var statements = parse()

// Statement returns the text of one engine statement. It panics on an unknown name: names are constants of the code.
func Statement(name string) string {
	text, ok := statements[name]
	if !ok {
		panic(fmt.Sprintf("sql: no statement named %q", name))
	}
	return text
}

// Statements lists the names of all engine statements, sorted.
func Statements() []string { return slices.Sorted(maps.Keys(statements)) }

// Queries returns the documented status queries by name: the files of queries/, without ending.
func Queries() map[string]string {
	out := map[string]string{}
	for _, path := range list("queries") {
		name := strings.TrimSuffix(strings.TrimPrefix(path, "queries/"), ".sql")
		out[name] = read(path)
	}
	return out
}

// parse splits the files of statements/ at lines of the form «-- name: Claim». What stands before the first name is
// the file's comment.
func parse() map[string]string {
	out := map[string]string{}
	for _, path := range list("statements") {
		for _, part := range strings.Split(read(path), "-- name: ")[1:] {
			name, text, _ := strings.Cut(part, "\n")
			if _, twice := out[name]; twice {
				panic(fmt.Sprintf("sql: statement %q is defined twice", name))
			}
			out[name] = strings.TrimSuffix(strings.TrimSpace(text), ";")
		}
	}
	return out
}

func list(dir string) []string {
	paths, err := fs.Glob(files, dir+"/*.sql")
	if err != nil {
		panic(err) // only a malformed pattern
	}
	return paths
}

func read(path string) string {
	text, err := files.ReadFile(path)
	if err != nil {
		panic(err) // embedded at build time
	}
	return string(text)
}
