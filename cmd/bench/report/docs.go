package report

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The marks between which the page is drawn again.
const (
	beginMark = "<!-- bench report: begin -->\n"
	endMark   = "<!-- bench report: end -->\n"
)

// WriteDocs draws the tables between the marks of benchmarks.md in dir, and benchmarks.svg.
func WriteDocs(dir string, f File) error {
	if f.Trial {
		return errors.New("these results are of a trial at a smaller scale, which belongs on no page; run without -scale")
	}
	path := filepath.Join(dir, "benchmarks.md")
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	drawn, err := between(string(page), Markdown(f))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(drawn), 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "benchmarks.svg"), []byte(SVG(f)), 0o644); err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	return nil
}

func between(page, text string) (string, error) {
	head, rest, ok := strings.Cut(page, beginMark)
	if !ok {
		return "", fmt.Errorf("it lacks the line %q", strings.TrimSpace(beginMark))
	}
	_, tail, ok := strings.Cut(rest, endMark)
	if !ok {
		return "", fmt.Errorf("it lacks the line %q", strings.TrimSpace(endMark))
	}
	return head + beginMark + text + endMark + tail, nil
}
