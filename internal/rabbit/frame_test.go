package rabbit

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"
)

const someID = "01990f3e-7c1a-7b52-9a3c-3f8f0f5c2d11"

func someHints(n int) []Hint {
	hints := make([]Hint, n)
	for i := range hints {
		hints[i] = Hint{Op: "run", Epoch: int32(i), Kind: "blog.comment.notify", ID: uuid.New()}
	}
	return hints
}

func TestEncodeFrame(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse(someID)
	got, err := EncodeFrame([]Hint{{"run", 0, "blog.comment.notify", id}, {"probe", math.MaxInt32, "a-b.c_d.e9", uuid.Nil}})
	if err != nil {
		t.Fatal(err)
	}
	want := "run 0 blog.comment.notify " + someID + "\nprobe 2147483647 a-b.c_d.e9 00000000-0000-0000-0000-000000000000\n"
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEncodeFrame_RefusesWhatDecodeWould(t *testing.T) {
	t.Parallel()
	good := Hint{"run", 0, "a.b.c", uuid.Nil}
	for name, change := range map[string]func(*Hint){
		"empty op":       func(h *Hint) { h.Op = "" },
		"long op":        func(h *Hint) { h.Op = strings.Repeat("a", MaxOpBytes+1) },
		"op with space":  func(h *Hint) { h.Op = "a b" },
		"negative epoch": func(h *Hint) { h.Epoch = -1 },
		"empty kind":     func(h *Hint) { h.Kind = "" },
		"long kind":      func(h *Hint) { h.Kind = strings.Repeat("a", MaxKindBytes+1) },
		"kind with line": func(h *Hint) { h.Kind = "a\nb" },
	} {
		h := good
		change(&h)
		if _, err := EncodeFrame([]Hint{good, h}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, n := range []int{0, MaxFrameHints + 1} {
		if _, err := EncodeFrame(someHints(n)); err == nil {
			t.Errorf("%d hints: accepted", n)
		}
	}
}

func TestDecodeFrame_RefusesMalformed(t *testing.T) {
	t.Parallel()
	line := "run 0 a.b.c " + someID + "\n"
	for _, frame := range []string{
		"", "\n", line + "\n", "\n" + line, line[:len(line)-1], line + "run", " " + line,
		"RUN 0 a.b.c " + someID + "\n",
		"run  0 a.b.c " + someID + "\n",
		"run 00 a.b.c " + someID + "\n",
		"run 01 a.b.c " + someID + "\n",
		"run +1 a.b.c " + someID + "\n",
		"run -1 a.b.c " + someID + "\n",
		"run  a.b.c " + someID + "\n",
		"run 2147483648 a.b.c " + someID + "\n",
		"run 99999999999 a.b.c " + someID + "\n",
		"run 0  " + someID + "\n",
		"run 0 A.b.c " + someID + "\n",
		"run 0 a.b.c " + strings.ToUpper(someID) + "\n",
		"run 0 a.b.c " + someID + "\r\n",
		"run 0 a.b.c " + someID + " \n",
		"run 0 a.b.c " + someID + "x\n",
		"run 0 a.b.c " + someID + "  x\n",
		"run 0 a.b.c " + someID + " x \n",
		"run 0 a.b.c " + someID + " \x7f\n",
		"run 0 a.b.c " + someID + " " + strings.Repeat("x", maxMoreBytes) + "\n",
		"run 0 a.b.c " + someID + " x",
		"run 0 a.b.c " + someID[:35] + "\n",
		"run 0 a.b.c {" + someID + "}\n",
		"run 0 a.b.c " + strings.ReplaceAll(someID, "-", "0") + "\n",
		"run 0 " + strings.Repeat("a", MaxKindBytes+1) + " " + someID + "\n",
		strings.Repeat(line, MaxFrameHints+1),
		strings.Repeat("a", maxFrameBytes+1),
	} {
		if hints, err := DecodeFrame([]byte(frame)); !errors.Is(err, errFrame) {
			t.Errorf("%.80q: got %v, %v", frame, hints, err)
		}
	}
}

// TestDecodeFrame_LaterRelease: what a later release adds to a line is left out.
func TestDecodeFrame_LaterRelease(t *testing.T) {
	t.Parallel()
	line := "run 7 a.b.c " + someID
	got, err := DecodeFrame([]byte(line + " high\n" + line + "\n" + line + " low p=3 {\"x\":1}\n" + line + " " + strings.Repeat("x", maxMoreBytes-1) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	h := Hint{"run", 7, "a.b.c", uuid.MustParse(someID)}
	if diff := cmp.Diff([]Hint{h, h, h, h}, got); diff != "" {
		t.Error(diff)
	}
}

func TestFrame_RoundTrip(t *testing.T) {
	t.Parallel()
	hint := rapid.Custom(func(t *rapid.T) Hint {
		return Hint{
			Op:    rapid.StringMatching(`[a-z_]{1,16}`).Draw(t, "op"),
			Epoch: rapid.Int32Min(0).Draw(t, "epoch"),
			Kind:  rapid.StringMatching(`[a-z0-9._-]{1,100}`).Draw(t, "kind"),
			ID:    uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(hint, 1, MaxFrameHints).Draw(t, "hints")
		frame, err := EncodeFrame(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeFrame(frame)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

// later is a line with fields that a later release has added.
var later = regexp.MustCompile(`(?m)^(\S+ \S+ \S+ \S+) .*\n`)

func FuzzDecodeFrame(f *testing.F) {
	f.Add([]byte("run 0 a.b.c " + someID + "\n"))
	f.Add([]byte("run 0 a.b.c " + someID + "\nprobe 12 x.y.z " + someID + "\n"))
	f.Add([]byte("run 2147483648 a.b.c " + someID + "\n"))
	f.Add([]byte("run 3 a.b.c " + someID + " high x=1\nrun 4 a.b.c " + someID + "\n"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		hints, err := DecodeFrame(frame)
		if err != nil {
			return
		}
		again, err := EncodeFrame(hints)
		known := later.ReplaceAll(frame, []byte("$1\n"))
		if err != nil || string(again) != string(known) {
			t.Errorf("accepted %q, which encodes as %q, %v", frame, again, err)
		}
	})
}

func BenchmarkEncodeFrame(b *testing.B) {
	for _, n := range []int{1, 32} {
		hints := someHints(n)
		b.Run(fmt.Sprintf("hints=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := EncodeFrame(hints); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeFrame(b *testing.B) {
	for _, n := range []int{1, 32} {
		frame, err := EncodeFrame(someHints(n))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("hints=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeFrame(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
