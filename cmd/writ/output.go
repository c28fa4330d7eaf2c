package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/sys/unix"
)

// The values of -o. wide is a table with all columns that never cuts or wraps anything.
const (
	outputTable = "table"
	outputWide  = "wide"
	outputJSON  = "json"
	outputJSONL = "jsonl"
)

var outputs = []string{outputTable, outputWide, outputJSON, outputJSONL}

// defaultWidth is what a table is laid out for off a terminal.
const defaultWidth = 100

func (a *app) isJSON() bool { return a.output == outputJSON || a.output == outputJSONL }

// emit prints one value as JSON: indented, or on a line of its own.
func (a *app) emit(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if a.output == outputJSON {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	_, err := a.stdout.Write(escapeControls(b.Bytes()))
	return err
}

// emitAll prints many values: one array, or a line each.
func emitAll[T any](a *app, many []T) error {
	if a.output == outputJSON {
		if many == nil {
			many = []T{}
		}
		return a.emit(many)
	}
	for _, v := range many {
		if err := a.emit(v); err != nil {
			return err
		}
	}
	return nil
}

// escapeControls writes as \u what JSON allows to stand as it is and a terminal would obey. Such characters can only be
// inside strings.
func escapeControls(raw []byte) []byte {
	if bytes.IndexFunc(raw, func(r rune) bool { return r >= 0x7f && isUnprintable(r) }) < 0 {
		return raw
	}
	var b bytes.Buffer
	for _, r := range string(raw) {
		if r >= 0x7f && isUnprintable(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.Bytes()
}

// grid is a table being filled. Cells must be clean.
type grid struct {
	app    *app
	writer table.Writer
	wide   bool
}

func (a *app) grid(header ...string) *grid {
	w := table.NewWriter()
	w.SetStyle(table.Style{
		Box:     table.BoxStyle{PaddingRight: "  ", UnfinishedRow: "…"},
		Format:  table.FormatOptions{Header: text.FormatUpper},
		Options: table.OptionsNoBordersAndSeparators,
	})
	w.SuppressTrailingSpaces()
	row := make(table.Row, len(header))
	for i, h := range header {
		row[i] = h
	}
	if len(header) > 0 {
		w.AppendHeader(row)
	}
	return &grid{app: a, writer: w, wide: a.output == outputWide}
}

func (g *grid) row(cells ...string) {
	row := make(table.Row, len(cells))
	for i, c := range cells {
		row[i] = c
	}
	g.writer.AppendRow(row)
}

// wrap lets a column (from 1) take at most a number of characters, on as many lines as it needs.
func (g *grid) wrap(column, most int) {
	if g.wide {
		return
	}
	g.writer.SetColumnConfigs([]table.ColumnConfig{{Number: column, WidthMax: max(most, 20), WidthMaxEnforcer: wrapLines}})
}

// wrapLines wraps each line by itself, and leaves those alone that fit: indented JSON keeps its shape.
func wrapLines(s string, most int) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if text.StringWidthWithoutEscSequences(line) > most {
			lines[i] = strings.TrimRight(text.WrapSoft(line, most), "\n")
		}
	}
	return strings.Join(lines, "\n")
}

func (g *grid) print() error {
	_, err := io.WriteString(g.app.stdout, g.writer.Render()+"\n")
	return err
}

// width is how many characters a line of a table may have.
func (a *app) width() int {
	if size, ok := terminalSize(a.stdout); ok && size >= 40 {
		return size
	}
	return defaultWidth
}

// terminalSize is the width of the terminal behind a stream; ok is false if there is none. A terminal may not know its
// width and say 0.
func terminalSize(stream any) (columns int, ok bool) {
	f, isFile := stream.(*os.File)
	if !isFile || f == nil {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	return int(size.Col), true
}

func isTerminal(stream any) bool {
	_, ok := terminalSize(stream)
	return ok
}

func (a *app) colored(stream any) bool {
	return !a.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(stream)
}

// Colours of the words that people look for first.
var colors = map[string]string{
	"ambiguous": "1;35", "error": "31", "retrying": "33", "running": "36", "sent": "32", "cancelled": "2",
	"fail": "1;31", "warn": "33", "ok": "32",
}

// paint colours a status or a result, on a terminal that wants it.
func (a *app) paint(word string) string {
	color, known := colors[word]
	if !known || !a.colored(a.stdout) {
		return word
	}
	return "\x1b[" + color + "m" + word + "\x1b[0m"
}

// columns joins label and value pairs into an aligned list, leaving out what is empty; long values are wrapped.
func (a *app) columns(pairs [][2]string) error {
	g := a.grid()
	longest := 0
	for _, p := range pairs {
		if p[1] != "" {
			g.row(p[0], strings.TrimRight(p[1], "\n"))
			longest = max(longest, len(p[0]))
		}
	}
	g.wrap(2, a.width()-longest-2)
	return g.print()
}
