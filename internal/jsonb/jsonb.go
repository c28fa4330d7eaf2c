// Package jsonb knows what Postgres can keep as jsonb.
package jsonb

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep a value is nested. Postgres parses JSON recursively and runs out of stack at some thousands.
const maxDepth = 1000

// unstorable says what in valid JSON Postgres cannot keep as jsonb, or nothing: NUL, half a surrogate pair, bytes that are
// not UTF-8, numbers beyond numeric, and nesting beyond its stack. Found here, it costs no aborted transaction.
func unstorable(b []byte) string {
	if !utf8.Valid(b) {
		return "is not valid UTF-8"
	}
	depth := 0
	for i := 0; i < len(b); i++ {
		problem := ""
		switch c := b[i]; {
		case c == '"':
			i, problem = scanString(b, i)
		case c == '-' || c >= '0' && c <= '9':
			i, problem = scanNumber(b, i)
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				problem = fmt.Sprintf("is nested deeper than %d", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
		if problem != "" {
			return problem
		}
	}
	return ""
}

// scanString returns the index of the closing quote of the string that begins at start.
func scanString(b []byte, start int) (int, string) {
	high := -2 // where the last high surrogate ended, if the low one is still to come
	for i := start + 1; i < len(b); i++ {
		if high >= 0 && (i != high || b[i] != '\\' || i+1 < len(b) && b[i+1] != 'u') {
			return i, fmt.Sprintf("holds half a surrogate pair at byte %d", high-6)
		}
		switch {
		case b[i] == '"':
			return i, ""
		case b[i] == '\\' && i+5 < len(b) && b[i+1] == 'u':
			code, _ := strconv.ParseUint(string(b[i+2:i+6]), 16, 16) // valid JSON: four hex digits
			low := code >= 0xDC00 && code <= 0xDFFF
			switch {
			case code == 0:
				return i, fmt.Sprintf("holds a NUL character (\\u0000) at byte %d", i)
			case low != (high >= 0):
				return i, fmt.Sprintf("holds half a surrogate pair at byte %d", i)
			}
			high = -2
			if code >= 0xD800 && code <= 0xDBFF {
				high = i + 6
			}
			i += 5
		case b[i] == '\\':
			i++
		}
	}
	return len(b), ""
}

// scanNumber returns the index of the last byte of the number that begins at start. Postgres' numeric has up to 131072
// digits before the point and 16383 after it.
func scanNumber(b []byte, start int) (int, string) {
	whole, fraction, exponent := 0, 0, 0
	i := start
	if b[i] == '-' {
		i++
	}
	digits := func() (n int) {
		for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
			n++
		}
		return n
	}
	whole = digits()
	if i < len(b) && b[i] == '.' {
		i++
		fraction = digits()
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		from := i
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		digits()
		var err error
		if exponent, err = strconv.Atoi(string(b[from:i])); err != nil || exponent > 1<<20 || exponent < -1<<20 {
			return i, fmt.Sprintf("holds a number with too large an exponent at byte %d", start)
		}
	}
	if whole+exponent > 131072 || fraction-exponent > 16383 {
		return i, fmt.Sprintf("holds a number with too many digits at byte %d", start)
	}
	return i - 1, ""
}

// Size is how many bytes Postgres writes valid JSON in that it can store: the measure of sql/events.sql. It parts members
// and elements by a comma and a space, escapes nothing that need not be, and writes numbers out. Of keys that come twice
// both are counted.
func Size(b []byte) (n int) {
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		case c == ',' || c == ':':
			n += 2
		case c == '"':
			end, _ := scanString(b, i)
			n += stringSize(b[i+1 : end])
			i = end
		case c == '-' || c >= '0' && c <= '9':
			end, _ := scanNumber(b, i)
			n += numberSize(string(b[i : end+1]))
			i = end
		default:
			n++
		}
	}
	return n
}

// stringSize is the size of a string, with its quotes, of what stands between them.
func stringSize(b []byte) int {
	n := 2
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			n++
			continue
		}
		i++
		if b[i] != 'u' {
			if n++; b[i] != '/' {
				n++
			}
			continue
		}
		code, _ := strconv.ParseUint(string(b[i+1:i+5]), 16, 16)
		i += 4
		switch {
		case code == '"' || code == '\\' || code >= '\b' && code <= '\r' && code != '\v':
			n += 2
		case code < ' ':
			n += 6
		case code < 0x80:
			n++
		case code < 0x800:
			n += 2
		case code >= 0xD800 && code <= 0xDFFF:
			n += 2 // half of the four bytes of a pair
		default:
			n += 3
		}
	}
	return n
}

// numberSize is the size of a number as numeric writes it: without an exponent, with the decimals that it came with.
func numberSize(s string) int {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	shift, _ := strconv.Atoi(exponent)
	unsigned := strings.TrimPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(unsigned, ".")
	n := 0
	if digits := strings.TrimLeft(whole+fraction, "0"); digits == "" {
		n = 1 // zero has no sign either
	} else {
		n = max(1, len(digits)-len(fraction)+shift) + len(mantissa) - len(unsigned)
	}
	if decimals := max(0, len(fraction)-shift); decimals > 0 {
		n += 1 + decimals
	}
	return n
}
