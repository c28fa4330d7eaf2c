//go:build ignore

// Generate writes comments.jsonl: 400 varied comments, always the same. go run generate.go > comments.jsonl
package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
)

type comment struct {
	Post   int    `json:"post"`
	Author string `json:"author"`
	Text   string `json:"text"`
}

var authors = []string{
	"Ann", "Björn Ångström", "李小龍", "Ольга", "محمد", "Zoë", "O'Brien", `Robert"); DROP TABLE comments;--`, "🦊", "नमिता",
	"Eve\r\nBcc: everybody@victim.example", "Mallory\nSubject: You have won", "<b>Bold</b>", "  spaces  ", "x", "Nguyễn Thị Minh",
	"Dr. \"Doc\" Who, Esq.", "a@b.example", "Ahmet İ.", "=?utf-8?q?encoded?=", "Tab\there", "Null-ish \u200b\u200d", "\u202eright to left",
}

var texts = []string{
	"Thank you, that was helpful.", "👍", ".", " ", "First!", "I disagree, and here is why:\n\n1. it depends\n2. it depends on that, too",
	"<script>alert('hello')</script>", "Quotes: 'single', \"double\", `back`, «guillemets», „low“", "\n\n\n", "Ünïcödé, 漢字, кириллица, עברית, عربى",
	"👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 ﷽", ".\r\n.\r\nQUIT\r\n", "..leading dots\n.\n..", "From the beginning of a line\nFrom here on", "$1 %s %d {{.}} ${HOME} \\n \\u0000",
	"a very long line: " + strings.Repeat("lorem ipsum dolor sit amet ", 60), strings.Repeat("many\nshort\nlines\n", 80), "\ttabs\tand   blanks   ", "Content-Type: text/html\r\n\r\n<h1>no</h1>",
	"See https://example.com/?a=1&b=2#c", "Was this sent twice? I hope not.", "null", "{\"json\": true}", "0", "-- \nsignature", "Ⅷ ½ ﬁ ẞ",
}

func main() {
	r := rand.New(rand.NewPCG(1, 2))
	var all []comment
	for i := range 397 {
		text := texts[i%len(texts)]
		if r.IntN(3) == 0 {
			text += fmt.Sprintf("\n(%d)", i)
		}
		all = append(all, comment{1 + r.IntN(20), authors[r.IntN(len(authors))], text})
	}
	special := map[int]comment{
		30:  {5, "Lucky", "Win big at casino.example, today only!"},                                  // rolled back by the application
		60:  {21, "Old friend", "Long time no see. Are you still reading this?"},                     // its address is refused
		300: {22, "Kay's reader", "What happens if the worker dies right after the mail was taken?"}, // and that happens
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for i, n := 0, 0; i < 400; i++ {
		c, ok := special[i]
		if !ok {
			c = all[n]
			n++
		}
		if err := out.Encode(c); err != nil {
			panic(err)
		}
	}
}
