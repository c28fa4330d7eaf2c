package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
)

// clean makes one safe line of a text from outside: control characters could move a terminal's cursor, hide what
// follows, or write over what stands there.
func clean(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case isUnprintable(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD")))
}

// isUnprintable is true of control characters and of those that turn the direction of text around.
func isUnprintable(r rune) bool {
	return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 || r >= 0x200E && r <= 0x200F || r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069
}

// span is a length of time as a person says it, the same as writ.span in SQL.
func span(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d m %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d m", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

// when says a time and how far it is from now.
func when(t, now time.Time) string {
	if t.After(now) {
		return clock(t) + " (in " + span(t.Sub(now)) + ")"
	}
	return clock(t) + " (" + span(now.Sub(t)) + " ago)"
}

// clock is a time of the reader's own zone.
func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// short cuts a text to a number of characters, and shows that it did.
func short(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most-1]) + "…"
}

// evidence says a log row's JSON object in a line: from → to first, then the rest by name, without what is null.
func evidence(raw json.RawMessage) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return clean(string(raw))
	}
	var parts []string
	if from, to := scalar(fields["from"]), scalar(fields["to"]); from != "" && to != "" {
		parts = append(parts, from+" → "+to)
		delete(fields, "from")
		delete(fields, "to")
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if value := scalar(fields[name]); value != "" {
			parts = append(parts, clean(name)+": "+value)
		}
	}
	return strings.Join(parts, ", ")
}

// scalar is a JSON value without its quotes; null is empty.
func scalar(raw json.RawMessage) string {
	var s *string
	if json.Unmarshal(raw, &s) == nil {
		if s == nil {
			return ""
		}
		return clean(*s)
	}
	return clean(string(raw))
}
