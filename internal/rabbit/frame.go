package rabbit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/google/uuid"
)

// The limits of a frame. A decoder refuses what exceeds them; the relay stays
// far below MaxFrameHints.
const (
	MaxFrameHints = 256
	MaxOpBytes    = 16
	MaxKindBytes  = 100

	maxEpochBytes = 10 // "2147483647"
	uuidBytes     = 36
	maxMoreBytes  = 128 // of fields that a later release adds to a line
	maxLineBytes  = MaxOpBytes + 1 + maxEpochBytes + 1 + MaxKindBytes + 1 + uuidBytes + maxMoreBytes + 1
	maxFrameBytes = MaxFrameHints * maxLineBytes
)

// Hint says that an intent may be waiting for an operation ("run", "probe") at
// an epoch. It is only a hint: the row is the truth.
type Hint struct {
	Op    string    // 1 to MaxOpBytes of a–z and _
	Epoch int32     // not negative
	Kind  string    // 1 to MaxKindBytes of a–z, 0–9 and "._-"
	ID    uuid.UUID // of the intent
}

var errFrame = errors.New("rabbit: malformed frame")

// EncodeFrame writes 1 to MaxFrameHints hints as lines of text, one for each:
//
//	run 0 blog.comment.notify 01990f3e-7c1a-7b52-9a3c-3f8f0f5c2d11
//
// The error names the first hint that cannot be written, such that a decoder
// would refuse it and with it the whole frame.
func EncodeFrame(hints []Hint) ([]byte, error) {
	if len(hints) == 0 || len(hints) > MaxFrameHints {
		return nil, fmt.Errorf("rabbit: a frame of %d hints; it holds 1 to %d", len(hints), MaxFrameHints)
	}
	size := 0
	for i := range hints {
		h := &hints[i]
		if h.Epoch < 0 || !validOp(h.Op) || !validKind(h.Kind) {
			return nil, fmt.Errorf("rabbit: hint %d cannot be encoded: op %q, epoch %d, kind %q", i, h.Op, h.Epoch, h.Kind)
		}
		size += len(h.Op) + len(h.Kind) + maxEpochBytes + uuidBytes + 4
	}
	frame := make([]byte, 0, size)
	for i := range hints {
		h := &hints[i]
		frame = append(frame, h.Op...)
		frame = append(frame, ' ')
		frame = strconv.AppendInt(frame, int64(h.Epoch), 10)
		frame = append(frame, ' ')
		frame = append(frame, h.Kind...)
		frame = append(frame, ' ')
		frame = appendUUID(frame, &h.ID)
		frame = append(frame, '\n')
	}
	return frame, nil
}

// DecodeFrame reads what EncodeFrame writes, in this release and in later ones:
// those may add fields to the end of a line, each after one space, which are left
// out here. Nothing else: for every frame that it accepts, encoding the hints gives
// the same bytes but for such fields. Its work and memory are bounded by
// MaxFrameHints whatever the input. The hints share one copy of the frame; the
// argument is not retained.
func DecodeFrame(frame []byte) ([]Hint, error) {
	if len(frame) > maxFrameBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errFrame, len(frame), maxFrameBytes)
	}
	n := bytes.Count(frame, []byte{'\n'})
	if n == 0 || n > MaxFrameHints {
		return nil, fmt.Errorf("%w: %d lines, it holds 1 to %d", errFrame, n, MaxFrameHints)
	}
	hints := make([]Hint, n)
	rest := string(frame) // the one copy of which Op and Kind are parts
	for i := range hints {
		var ok bool
		if rest, ok = decodeLine(rest, &hints[i]); !ok {
			return nil, fmt.Errorf("%w: line %d", errFrame, i+1)
		}
	}
	if rest != "" {
		return nil, fmt.Errorf("%w: no newline at the end", errFrame)
	}
	return hints, nil
}

// decodeLine reads one line off the front of s. It scans each byte once: this is
// the hot path of a worker.
func decodeLine(s string, h *Hint) (rest string, ok bool) {
	i := 0
	for i < len(s) && isOpByte(s[i]) {
		i++
	}
	if i == 0 || i > MaxOpBytes || i == len(s) || s[i] != ' ' {
		return "", false
	}
	h.Op, s = s[:i], s[i+1:]

	if h.Epoch, s, ok = decodeEpoch(s); !ok {
		return "", false
	}

	i = 0
	for i < len(s) && isKindByte(s[i]) {
		i++
	}
	if i == 0 || i > MaxKindBytes || len(s)-i < 1+uuidBytes+1 || s[i] != ' ' {
		return "", false
	}
	h.Kind = s[:i]
	if !decodeUUID(s[i+1:i+1+uuidBytes], &h.ID) {
		return "", false
	}
	if s = s[i+1+uuidBytes:]; s[0] == '\n' {
		return s[1:], true
	}
	return skipMore(s)
}

// skipMore leaves out the fields that a later release has added to a line, and its
// end.
func skipMore(s string) (rest string, ok bool) {
	for i := range min(len(s), maxMoreBytes+1) {
		switch c := s[i]; {
		case i == 0:
			if c != ' ' {
				return "", false
			}
		case c == '\n' && s[i-1] != ' ':
			return s[i+1:], true
		case c < ' ' || c > '~' || c == ' ' && s[i-1] == ' ':
			return "", false
		}
	}
	return "", false
}

// decodeEpoch reads a decimal without sign or leading zeros, and the space after
// it.
func decodeEpoch(s string) (epoch int32, rest string, ok bool) {
	i, v := 0, int64(0)
	for i < len(s) && i <= maxEpochBytes && '0' <= s[i] && s[i] <= '9' {
		v = v*10 + int64(s[i]-'0')
		i++
	}
	if i == 0 || i > maxEpochBytes || v > math.MaxInt32 || i == len(s) || s[i] != ' ' || (s[0] == '0' && i > 1) {
		return 0, "", false
	}
	return int32(v), s[i+1:], true
}

func appendUUID(b []byte, id *uuid.UUID) []byte {
	b = append(hex.AppendEncode(b, id[:4]), '-')
	b = append(hex.AppendEncode(b, id[4:6]), '-')
	b = append(hex.AppendEncode(b, id[6:8]), '-')
	b = append(hex.AppendEncode(b, id[8:10]), '-')
	return hex.AppendEncode(b, id[10:])
}

// decodeUUID reads the 36 bytes of a UUID in lower case. uuid.Parse would also
// take upper case, so that one hint had several spellings.
func decodeUUID(s string, id *uuid.UUID) bool {
	if s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	for i, at := range uuidDigits {
		hi, lo := hexDigit[s[at]], hexDigit[s[at+1]]
		if hi|lo > 15 {
			return false
		}
		id[i] = hi<<4 | lo
	}
	return true
}

// uuidDigits are where the two digits of each byte start.
var uuidDigits = [16]int{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34}

// hexDigit is the value of a digit, 255 for what is none.
var hexDigit = func() (t [256]byte) {
	for i := range t {
		t[i] = 255
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	return t
}()

func isOpByte(c byte) bool { return 'a' <= c && c <= 'z' || c == '_' }

func isKindByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

func validOp(op string) bool {
	for i := range len(op) {
		if !isOpByte(op[i]) {
			return false
		}
	}
	return op != "" && len(op) <= MaxOpBytes
}

func validKind(kind string) bool {
	for i := range len(kind) {
		if !isKindByte(kind[i]) {
			return false
		}
	}
	return kind != "" && len(kind) <= MaxKindBytes
}
