package workers

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// whole is an event with all attributes, as headers.
func whole() map[string]any {
	return map[string]any{
		"cloudEvents_specversion": "1.0", "cloudEvents_id": "e1", "cloudEvents:source": "/api", "cloudEvents_type": "user.authorized",
		"cloudEvents_subject": []byte("user:1"), "cloudEvents_time": time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC),
		"cloudEvents_tid": "01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c871", "cloudEvents_parentid": "01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c872",
		"cloudEvents_traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "other": 7,
	}
}

func TestLetter(t *testing.T) {
	t.Parallel()
	want := Event[json.RawMessage]{
		ID: "e1", Source: "/api", Type: "user.authorized", Subject: "user:1", Time: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC),
		TID: uuid.MustParse("01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c871"), Parent: uuid.MustParse("01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c872"),
		Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Data: json.RawMessage(`{"n": 1}`),
	}
	binary := newLetter(whole(), "application/json", []byte(`{"n": 1}`))
	kept, err := restored(binary.headers(), binary.body)
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]letter{
		"binary": binary, "kept": kept,
		"structured": newLetter(nil, "application/cloudevents+json", []byte(`{"specversion": "1.0", "id": "e1", "source": "/api", "type": "user.authorized",
			"subject": "user:1", "time": "2026-11-22T08:00:00Z", "tid": "01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c871", "parentid": "01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c872",
			"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "weight": 3, "data": {"n": 1}}`)),
		"base64": newLetter(nil, "application/cloudevents+json", []byte(`{"specversion": "1.0", "id": "e1", "source": "/api", "type": "user.authorized",
			"subject": "user:1", "time": "2026-11-22T08:00:00Z", "tid": "01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c871", "parentid": "01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c872",
			"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "data_base64": "eyJuIjogMX0="}`)),
	} {
		got, err := l.read("user.authorized")
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
		if source, id := l.identity(); source != "/api" || id != "e1" {
			t.Errorf("%s: it is %s %s", name, source, id)
		}
	}
}

func TestLetter_malformed(t *testing.T) {
	t.Parallel()
	spoil := func(name string, value any) letter {
		headers := whole()
		headers[name] = value
		return newLetter(headers, "", nil)
	}
	for words, l := range map[string]letter{
		"attribute id has 0 bytes":       spoil("cloudEvents_id", ""),
		"attribute source has 300 bytes": spoil("cloudEvents:source", strings.Repeat("s", 300)),
		"specversion is \"0.3\"":         spoil("cloudEvents_specversion", "0.3"),
		"its type is \"user.forgotten\"": spoil("cloudEvents_type", "user.forgotten"),
		"attribute time":                 spoil("cloudEvents_time", "yesterday"),
		"attribute tid":                  spoil("cloudEvents_tid", 7),
		"attribute parentid":             spoil("cloudEvents_parentid", "7"),
		"no CloudEvent in JSON":          newLetter(nil, structured, []byte("[]")),
		"data_base64":                    newLetter(nil, structured, []byte(`{"data_base64": "?"}`)),
	} {
		if _, err := l.read("user.authorized"); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", words, err)
		}
	}
	// What has no tid begins a tree, the same one at each try.
	bare := newLetter(whole(), "", nil)
	delete(bare.attributes, "tid")
	first, _ := bare.read("user.authorized")
	if again, err := bare.read("user.authorized"); err != nil || first.TID == uuid.Nil || again.TID != first.TID {
		t.Errorf("tid %s, then %s, %v", first.TID, again.TID, err)
	}
}

// FuzzLetter: whatever comes has an identity that the inbox can keep, and that is the same after it was kept; and reading it
// does not panic.
func FuzzLetter(f *testing.F) {
	f.Add("cloudEvents_id", "e1", "application/json", []byte(`{"n": 1}`))
	f.Add("cloudEvents:source", "\x00\xff", structured, []byte(`{"id": "e1", "source": "\u0000", "data": null}`))
	f.Add("", "", structured+"; charset=utf-8", []byte(`{"id": 7, "source": {}, "time": false}`))
	f.Fuzz(func(t *testing.T, name, value, contentTypeOf string, body []byte) {
		headers := whole()
		headers[name] = value
		l := newLetter(headers, contentTypeOf, body)
		source, id := l.identity()
		if source == "" || id == "" || strings.ContainsRune(source+id, 0) || source != strings.ToValidUTF8(source, "?") || id != strings.ToValidUTF8(id, "?") {
			t.Errorf("it is %q %q", source, id)
		}
		kept, err := restored(l.headers(), body)
		if err != nil {
			t.Fatal(err)
		}
		if s, i := kept.identity(); s != source || i != id {
			t.Errorf("kept, %q %q is %q %q", source, id, s, i)
		}
		e, err := l.read("user.authorized")
		if err == nil && e.TID == uuid.Nil {
			t.Error("an event without a tid")
		}
	})
}
