package probe

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// logReader reads a log and its rotated files, each byte once, and remembers which Message-IDs it has met. Safe for
// concurrent use.
type logReader struct {
	path, rotated string
	parse         func(string) Line
	keep          time.Duration

	mu    sync.Mutex
	open  *os.File // what is followed now; nil: nothing yet
	read  int64    // of it, in whole lines
	tail  []byte   // what stands just before that: a file that was cut off in place has something else there
	lines int64    // of the mail server, read in all
	from  time.Time
	last  time.Time // of the newest line that says so
	hits  map[string]*hit
	order []*hit // the oldest first
}

// hit is a mail that the log has met.
type hit struct {
	id    string
	at    time.Time
	taken bool
	line  string
}

// sighting is what the log says of a Message-ID.
type sighting struct {
	hit   *hit
	from  time.Time // the log is known without a gap since then; zero: not at all
	lines int64
}

func newLogReader(path, rotated string, parse func(string) Line, keep time.Duration) *logReader {
	return &logReader{path: path, rotated: rotated, parse: parse, keep: keep, hits: map[string]*hit{}}
}

// look reads what is new and looks for a Message-ID.
func (r *logReader) look(id string) (sighting, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.catchUp(); err != nil {
		return sighting{}, fmt.Errorf("read the log: %w", err)
	}
	seen := sighting{from: r.from, lines: r.lines}
	if h := r.hits[id]; h != nil {
		copied := *h
		seen.hit = &copied
	}
	return seen, nil
}

// short is a Message-ID up to its @.
func short(id string) string {
	before, _, _ := strings.Cut(id, "@")
	return before
}

// catchUp reads on. The file that is followed stays open: it is read to its end also when it has another name by now.
func (r *logReader) catchUp() error {
	if r.open == nil {
		if err := r.begin(); err != nil {
			return err
		}
	}
	for {
		info, err := r.open.Stat()
		if err != nil {
			return err
		}
		if err := r.checkCut(); err != nil {
			return err
		}
		current, err := os.Stat(r.path) // asked before the rest is read: a renamed file may get lines until its writer reopens
		if err != nil {
			return err
		}
		if err := r.readOn(); err != nil {
			return err
		}
		if err := r.checkCut(); err != nil { // while it was read: the lines are not those that followed
			return err
		}
		if os.SameFile(info, current) {
			r.prune()
			return nil
		}
		if err := r.next(info, current); err != nil {
			return err
		}
	}
}

// checkCut begins anew with a file that was cut off in place, as logrotate's copytruncate does, however long it has grown
// since. Lines in between may be gone for good, so the log is known from here on only; what was met is no less true.
func (r *logReader) checkCut() error {
	there := make([]byte, len(r.tail))
	if _, err := r.open.ReadAt(there, r.read-int64(len(there))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.Equal(there, r.tail) {
		r.from, r.read, r.tail = time.Time{}, 0, nil
	}
	return nil
}

// next goes on with the file behind the one that was rotated away. If there is more than one between, the gap is read, too,
// by beginning anew.
func (r *logReader) next(old, current os.FileInfo) error {
	names, err := r.older()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return r.again()
	}
	newest, err := os.Stat(names[len(names)-1])
	if err != nil {
		return err
	}
	if !os.SameFile(newest, old) {
		return r.again()
	}
	f, err := os.Open(r.path)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err != nil || !os.SameFile(info, current) {
		return errors.Join(err, f.Close()) // rotated once more: the next round sees to it
	}
	r.open.Close()
	r.open, r.read, r.tail = f, 0, nil
	return nil
}

// again forgets everything and reads all files anew.
func (r *logReader) again() error {
	r.open.Close()
	r.open = nil
	r.forget()
	return r.begin()
}

func (r *logReader) forget() {
	r.from, r.last = time.Time{}, time.Time{}
	r.hits, r.order = map[string]*hit{}, nil
}

// begin reads the rotated files, the oldest first, and opens the present one.
func (r *logReader) begin() error {
	f, err := os.Open(r.path)
	if err != nil {
		return err
	}
	names, err := r.older()
	if err != nil {
		f.Close()
		return err
	}
	info, err := f.Stat()
	for _, name := range names {
		if err == nil {
			err = r.readOlder(name, info)
		}
	}
	if err != nil {
		f.Close()
		return err
	}
	r.open, r.read, r.tail = f, 0, nil
	return nil
}

var number = regexp.MustCompile(`\.(\d{1,4})(\.gz)?$`)

// older lists the rotated files, the oldest first. If they are numbered and a number is missing, those behind the gap are
// left out: the log is then not known further back. Others are in the order of their names, as dates are.
func (r *logReader) older() ([]string, error) {
	names, err := filepath.Glob(r.rotated)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == r.path })
	numbers := map[string]int{}
	for _, name := range names {
		if m := number.FindStringSubmatch(name); m != nil {
			numbers[name], _ = strconv.Atoi(m[1])
		}
	}
	if len(numbers) < len(names) {
		slices.Sort(names)
		return names, nil
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(numbers[a], numbers[b]) })
	for n, name := range names {
		if first := numbers[names[0]]; first > 1 || numbers[name] != first+n {
			names = names[:n]
			break
		}
	}
	slices.Reverse(names)
	return names, nil
}

// readOlder reads a rotated file whole. Nothing of it is remembered that is older than keep.
func (r *logReader) readOlder(name string, current os.FileInfo) error {
	f, err := os.Open(name)
	if err != nil {
		return err // rotated away in this moment: the next look begins anew
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || os.SameFile(info, current) {
		return err
	}
	if time.Since(info.ModTime()) > r.keep {
		return nil // whole of it too old; what is newer follows without a gap
	}
	var in io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, err = r.readLines(in); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// readOn reads what was appended to the present file, up to its last whole line.
func (r *logReader) readOn() error {
	if _, err := r.open.Seek(r.read, io.SeekStart); err != nil {
		return err
	}
	n, err := r.readLines(r.open)
	if err != nil || n == 0 {
		return err
	}
	r.read += n
	r.tail = make([]byte, min(r.read, tailed))
	_, err = r.open.ReadAt(r.tail, r.read-int64(len(r.tail)))
	if errors.Is(err, io.EOF) {
		r.tail = []byte{0} // cut off just now; a line ends otherwise
		return nil
	}
	return err
}

// tailed is how many bytes tell that a file is still the one that was read: some lines, with their times.
const tailed = 1 << 10

// maxLine bounds a line, in bytes; what is longer is read and says nothing.
const maxLine = 64 << 10

// readLines reads whole lines and returns how many bytes they were.
func (r *logReader) readLines(in io.Reader) (n int64, err error) {
	b := bufio.NewReaderSize(in, maxLine)
	for {
		line, err := b.ReadSlice('\n')
		read := int64(len(line))
		for errors.Is(err, bufio.ErrBufferFull) {
			var more []byte
			line = line[:0]
			more, err = b.ReadSlice('\n')
			read += int64(len(more))
		}
		if errors.Is(err, io.EOF) {
			return n, nil // not whole: not there yet
		} else if err != nil {
			return n, err
		}
		n += read
		r.note(strings.TrimRight(string(line), "\r\n"))
	}
}

// note remembers what a line says.
func (r *logReader) note(text string) {
	l := r.parse(text)
	if l.Server || l.MessageID != "" {
		r.lines++
	}
	if !l.At.IsZero() {
		r.last = l.At
		if r.from.IsZero() {
			r.from = l.At
		}
	}
	if l.Lost { // how many and until when is told later, or never
		r.from = r.last.Add(limited)
	}
	if l.MessageID == "" {
		return
	}
	if before := r.hits[l.MessageID]; before != nil && before.id == l.MessageID {
		before.taken = before.taken || l.Taken
		if l.Taken {
			before.at, before.line = r.last, text
		}
		return
	}
	h := &hit{id: l.MessageID, at: r.last, taken: l.Taken, line: text}
	// By the whole id, and by what stands before its @: other domains may use that, too.
	r.hits[h.id], r.hits[short(h.id)] = h, h
	r.order = append(r.order, h)
}

// limited is how long the limits last, at most, by which a logger drops lines: 10 min with rsyslog's reader of the journal.
const limited = 15 * time.Minute

// prune forgets what is older than keep; the log is then known since then.
func (r *logReader) prune() {
	horizon := r.last.Add(-r.keep)
	n := 0
	for n < len(r.order) && r.order[n].at.Before(horizon) {
		h := r.order[n]
		if r.hits[h.id] == h {
			delete(r.hits, h.id)
		}
		if r.hits[short(h.id)] == h {
			delete(r.hits, short(h.id))
		}
		n++
	}
	r.order = slices.Delete(r.order, 0, n)
	if !r.from.IsZero() && r.from.Before(horizon) {
		r.from = horizon
	}
}
