package webhook

import (
	"net/http"
	"strings"
	"testing"
)

// However an answer spells a credential, it is taken out.
func TestRedactor(t *testing.T) {
	t.Parallel()
	own := http.Header{
		"Authorization": {"Basic YW5uMTpvcGVuIHNlc2FtZQ=="}, // ann1:open sesame
		"Cookie":        {"session=8f3a99c0de; theme=dark"},
		"X-Key":         {"hunter2"},
	}
	r, err := http.NewRequest(http.MethodPost, "https://shop.example/in?sig=a%26b%3Cc%2Fd", nil)
	if err != nil {
		t.Fatal(err)
	}
	d := newRedactor(r, own)
	for answer, secrets := range map[string][]string{
		`no such user "ann1" with open sesame`:          {"ann1", "sesame"},
		`YW5uMTpvcGVuIHNlc2FtZQ==`:                      {"YW5u"},
		`{"session": "8F3A99C0DE"} is over`:             {"8F3A"},
		`X-Key: hunter2`:                                {"hunter"},
		`{"sig": "a\u0026b\u003cc/d"}`:                  {"b"},
		`{"sig": "a&b<c\/d"}`:                           {"b<c"},
		`<p>sig a&amp;b&lt;c/d</p>`:                     {"b&lt;"},
		`the signature a%26b%3cc%2fd, which is a&b<c/d`: {"b%3c", "b<c"},
	} {
		said := d.text(answer, false)
		for _, secret := range secrets {
			if strings.Contains(said, secret) {
				t.Errorf("%s: %q is left: %s", answer, secret, said)
			}
		}
		if !strings.Contains(said, hidden) {
			t.Errorf("%s: %s", answer, said)
		}
	}
	if said := d.text("the customer is dark, in session", false); said != "the customer is dark, in session" {
		t.Errorf("no credential: %s", said)
	}
}
