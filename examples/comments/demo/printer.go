package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
)

// printer writes the demo's lines. On a terminal the last one is alive and says what is waited for. Not safe for
// concurrent use.
type printer struct {
	out      io.Writer
	began    time.Time
	terminal bool
	color    bool
	alive    bool      // a live line is on the screen
	redrawn  time.Time // when it was last written
}

func newPrinter(out io.Writer) *printer {
	p := &printer{out: out, began: time.Now()}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	p.color = p.terminal && os.Getenv("NO_COLOR") == ""
	return p
}

const width = 108

func (p *printer) line(s string) {
	p.live("")
	fmt.Fprintln(p.out, s)
}

func (p *printer) paint(c text.Color, s string) string {
	if !p.color {
		return s
	}
	return c.EscapeSeq() + s + text.Reset.EscapeSeq()
}

func (p *printer) title(format string, args ...any) {
	p.line(p.paint(text.Bold, fmt.Sprintf(format, args...)))
}

func (p *printer) act(n int, name string) {
	p.line(p.paint(text.Bold, fmt.Sprintf("\n%d  %s", n, name)))
}

// step says what happened, and when.
func (p *printer) step(format string, args ...any) {
	p.line(p.paint(text.Faint, fmt.Sprintf("%6.1f s  ", time.Since(p.began).Seconds())) + fmt.Sprintf(format, args...))
}

func (p *printer) note(format string, args ...any) { p.line("   " + fmt.Sprintf(format, args...)) }

// quote shows a command and what it said.
func (p *printer) quote(command, said string) {
	const indent = "            "
	p.line(indent + p.paint(text.FgCyan, "$ "+command))
	for l := range strings.SplitSeq(text.WrapSoft(said, width-len(indent)), "\n") {
		p.line(indent + strings.TrimRight(l, " "))
	}
}

// live replaces the live line; the empty one takes it away.
func (p *printer) live(format string, args ...any) {
	if !p.terminal || (format == "" && !p.alive) {
		return
	}
	if format != "" && p.alive && time.Since(p.redrawn) < 100*time.Millisecond {
		return
	}
	p.alive, p.redrawn = format != "", time.Now()
	fmt.Fprint(p.out, "\r\x1b[K")
	if p.alive {
		fmt.Fprint(p.out, p.paint(text.Faint, "          "+text.Snip(fmt.Sprintf(format, args...), width-10, "…")))
	}
}
