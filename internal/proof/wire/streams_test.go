package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pg is a message of Postgres.
func pg(kind byte, fields ...string) []byte {
	body := strings.Join(fields, "\x00")
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
}

func startup() []byte { return append([]byte{0, 0, 0, 9, 0, 3, 0, 0}, 0) }

// frame is a frame of AMQP.
func frame(kind byte, channel uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind}, channel)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), frameEnd)
}

func publish(channel uint16, key, body string) []byte {
	method := append([]byte{0, 60, 0, 40, 0, 0, 0, byte(len(key))}, key...)
	header := binary.BigEndian.AppendUint64([]byte{0, 60, 0, 0}, uint64(len(body)))
	out := frame(frameMethod, channel, append(method, 1))
	out = append(out, frame(frameHeader, channel, append(header, 0, 0))...)
	half := len(body) / 2
	out = append(out, frame(frameBody, channel, []byte(body[:half]))...)
	return append(out, frame(frameBody, channel, []byte(body[half:]))...)
}

// read reads a side's whole stream.
func read(p protocol, from Side, in io.Reader) (out []Message, rest error) {
	r := bufio.NewReader(in)
	for {
		m, err := p.next(from, r)
		if err != nil {
			return out, err
		}
		out = append(out, *m)
	}
}

// anyhow are the ways in which bytes may arrive.
var anyhow = map[string]func([]byte) io.Reader{
	"joined":  func(b []byte) io.Reader { return bytes.NewReader(b) },
	"split":   func(b []byte) io.Reader { return iotest.OneByteReader(bytes.NewReader(b)) },
	"halfway": func(b []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(b)) },
}

func TestPostgres_followsStatements(t *testing.T) {
	t.Parallel()
	stream := bytes.Join([][]byte{
		startup(),
		pg('P', "s1", "UPDATE a", ""), pg('S'), // prepared
		pg('Q', "begin", ""),
		pg('B', "", "s1", ""), pg('E', "", ""), pg('S'),
		pg('B', "p2", "s1", ""), pg('E', "p2", ""), pg('S'),
		pg('Q', "-- done\n commit", ""),
		pg('B', "", "s1", ""), pg('E', "", ""), pg('S'), // by itself
		pg('P', "", "BEGIN", ""), pg('B', "", "", ""), pg('E', "", ""), // pipelined
		pg('P', "", "DELETE b", ""), pg('B', "", "", ""), pg('E', "", ""),
		pg('P', "", "COMMIT", ""), pg('B', "", "", ""), pg('E', "", ""), pg('S'),
		pg('Q', "BEGIN; INSERT c; ROLLBACK TO s; COMMIT", ""),
		pg('Q', "BEGIN; INSERT d; ROLLBACK", ""),
		pg('C', "Ss1"), pg('B', "", "s1", ""), pg('E', "", ""), pg('S'), // forgotten
		pg('X'),
	}, nil)
	for name, arrive := range anyhow {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			messages, err := read(newPostgres(), Client, arrive(stream))
			if err != io.EOF {
				t.Errorf("the stream ended with %v", err)
			}
			var got []string
			var raw []byte
			for _, m := range messages {
				raw = append(raw, m.Raw...)
				if m.Statement != "" {
					got = append(got, m.Statement)
				}
				if len(m.Commits) > 0 {
					got = append(got, "→ "+strings.TrimSpace(strings.Join(m.Commits, ", ")))
				}
			}
			want := []string{
				"begin", "UPDATE a", "UPDATE a", "-- done\n commit", "→ UPDATE a, UPDATE a",
				"UPDATE a", "→ UPDATE a",
				"BEGIN", "DELETE b", "COMMIT", "→ DELETE b",
				"BEGIN; INSERT c; ROLLBACK TO s; COMMIT", "→ INSERT c",
				"BEGIN; INSERT d; ROLLBACK",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("statements and what commits them (-want +got):\n%s", diff)
			}
			if !bytes.Equal(raw, stream) {
				t.Error("not all bytes come through")
			}
		})
	}
}

// TestPostgres_followsAnswers: what commits is known from what the server says, and all of a commit's answer is one
// message.
func TestPostgres_followsAnswers(t *testing.T) {
	t.Parallel()
	ready := func(status string) []byte { return pg('Z', status) }
	tests := map[string]struct {
		client, server [][]byte
		want           []string // of the messages with news
		messages       int
	}{
		"committed": {
			[][]byte{pg('Q', "BEGIN", ""), pg('Q', "UPDATE a", ""), pg('Q', "COMMIT", "")},
			[][]byte{pg('C', "BEGIN", ""), ready("T"), pg('C', "UPDATE 1", ""), ready("T"), pg('C', "COMMIT", ""), pg('N', "by the way", ""), ready("I")},
			[]string{"UPDATE a"},
			7 - 2,
		},
		"rolled back": {
			[][]byte{pg('Q', "BEGIN", ""), pg('Q', "UPDATE a", ""), pg('Q', "COMMIT", "")},
			[][]byte{pg('C', "BEGIN", ""), ready("T"), pg('E', "no", ""), ready("E"), pg('C', "ROLLBACK", ""), ready("I")},
			nil, 6,
		},
		"pipelined": {
			[][]byte{
				pg('P', "", "BEGIN", ""), pg('B', "", "", ""), pg('E', "", ""), pg('P', "", "UPDATE a", ""), pg('B', "", "", ""), pg('E', "", ""),
				pg('P', "", "COMMIT", ""), pg('B', "", "", ""), pg('E', "", ""), pg('S'),
			},
			[][]byte{pg('C', "BEGIN", ""), pg('D', "row"), pg('C', "UPDATE 1", ""), pg('C', "COMMIT", ""), ready("I")},
			[]string{"UPDATE a"},
			4,
		},
		"pipelined, failed": {
			[][]byte{
				pg('P', "", "UPDATE a", ""), pg('B', "", "", ""), pg('E', "", ""), pg('P', "", "COMMIT", ""), pg('B', "", "", ""), pg('E', "", ""), pg('S'),
			},
			[][]byte{pg('E', "no", ""), ready("I")},
			nil, 2,
		},
		"by itself": {
			[][]byte{pg('P', "", "UPDATE a", ""), pg('B', "", "", ""), pg('E', "", ""), pg('S'), pg('Q', "SELECT 1", "")},
			[][]byte{pg('D', "row"), pg('C', "UPDATE 1", ""), ready("I"), pg('C', "SELECT 1", ""), ready("I")},
			[]string{"UPDATE a", "SELECT 1"},
			3,
		},
		"by itself, refused at the commit": {
			[][]byte{pg('P', "", "UPDATE a", ""), pg('B', "", "", ""), pg('E', "", ""), pg('S')},
			[][]byte{pg('C', "UPDATE 1", ""), pg('E', "deferred", ""), ready("I")},
			nil, 1,
		},
	}
	for name, tt := range tests {
		for how, arrive := range anyhow {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				p := newPostgres()
				if _, err := read(p, Client, arrive(append(startup(), bytes.Join(tt.client, nil)...))); err != io.EOF {
					t.Fatal(err)
				}
				login := ready("I")
				stream := append(login, bytes.Join(tt.server, nil)...)
				messages, err := read(p, Server, arrive(stream))
				if err != io.EOF {
					t.Fatal(err)
				}
				var got []string
				var raw []byte
				for _, m := range messages {
					got, raw = append(got, m.Committed...), append(raw, m.Raw...)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("committed (-want +got):\n%s", diff)
				}
				if len(messages) != 1+tt.messages || !bytes.Equal(raw, stream) {
					t.Errorf("%d messages of %d bytes; want %d of %d", len(messages), len(raw), 1+tt.messages, len(stream))
				}
			})
		}
	}
}

// TestPostgres_answersInTime: a client that waits for an answer before it sends its Sync gets it.
func TestPostgres_answersInTime(t *testing.T) {
	t.Parallel()
	p := newPostgres()
	asked := bytes.Join([][]byte{startup(), pg('P', "", "UPDATE a", ""), pg('B', "", "", ""), pg('E', "", ""), pg('H')}, nil)
	if _, err := read(p, Client, bytes.NewReader(asked)); err != io.EOF {
		t.Fatal(err)
	}
	messages, _ := read(p, Server, bytes.NewReader(append(pg('Z', "I"), pg('C', "UPDATE 1", "")...)))
	if len(messages) != 2 {
		t.Fatalf("%d messages before the Sync; want the login's and the answer", len(messages))
	}
	if _, err := read(p, Client, bytes.NewReader(pg('S'))); err != io.EOF {
		t.Fatal(err)
	}
	messages, _ = read(p, Server, bytes.NewReader(pg('Z', "I")))
	if len(messages) != 1 || !Committed("UPDATE a")(&messages[0]) {
		t.Errorf("%v does not tell that it was committed", messages)
	}
}

func TestAMQP_followsMethods(t *testing.T) {
	t.Parallel()
	ack := frame(frameMethod, 1, []byte{0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 7, 0})
	stream := bytes.Join([][]byte{
		[]byte("AMQP\x00\x00\x09\x01"), publish(1, "q", "hello"), ack, frame(8, 0, nil), publish(2, "", ""),
		frame(frameMethod, 0, []byte{0, 10, 0, 50}), frame(frameMethod, 0, []byte{0, 99, 0, 1}),
	}, nil)
	for name, arrive := range anyhow {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			messages, err := read(newAMQP(), Client, arrive(stream))
			if err != io.EOF {
				t.Errorf("the stream ended with %v", err)
			}
			var got []string
			var raw []byte
			for _, m := range messages {
				got, raw = append(got, m.Method+" "+m.Key+" "+string(m.Body)), append(raw, m.Raw...)
			}
			// Of the empty publish, the two empty body frames are messages of their own.
			want := []string{"  ", "basic.publish q hello", "basic.ack  ", "  ", "basic.publish  ", "  ", "  ", "connection.close  ", "99.1  "}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("methods (-want +got):\n%s", diff)
			}
			if !bytes.Equal(raw, stream) {
				t.Error("not all bytes come through")
			}
		})
	}
}

func TestRewrites(t *testing.T) {
	t.Parallel()
	one := func(raw []byte) Message {
		t.Helper()
		messages, err := read(newAMQP(), Client, bytes.NewReader(raw))
		if err != io.EOF || len(messages) == 0 {
			t.Fatalf("%d messages, %v", len(messages), err)
		}
		return messages[len(messages)-1]
	}
	m := one(publish(3, "writ.q", "hello"))
	if fate := Misroute(&m); fate != Passed {
		t.Errorf("misrouted: %v", fate)
	}
	if again := one(m.Raw); again.Key != "nowhere.writ.q" || string(again.Body) != "hello" {
		t.Errorf("misrouted to %q with %q", again.Key, again.Body)
	}
	ack := one(frame(frameMethod, 1, []byte{0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 7, 1}))
	Nack(&ack)
	if again := one(ack.Raw); again.Method != "basic.nack" {
		t.Errorf("a nack reads as %q", again.Method)
	}
	Block(&ack)
	messages, err := read(newAMQP(), Server, bytes.NewReader(ack.Raw))
	if err != io.EOF || len(messages) != 2 || messages[0].Method != "connection.blocked" || messages[1].Method != "basic.nack" {
		t.Errorf("blocked: %v, %v", messages, err)
	}
}

// whole holds the parsers to their promise: whatever arrives, and however it is cut, the same messages come out. It
// returns their bytes.
func whole(t *testing.T, make func() protocol, from Side, stream []byte) (raw []byte) {
	t.Helper()
	joined, err := read(make(), from, bytes.NewReader(stream))
	split, splitErr := read(make(), from, iotest.OneByteReader(bytes.NewReader(stream)))
	if diff := cmp.Diff(joined, split, cmp.AllowUnexported(Message{})); diff != "" {
		t.Errorf("joined and split bytes differ:\n%s", diff)
	}
	if (err == io.EOF) != (splitErr == io.EOF) {
		t.Errorf("joined bytes end with %v, split ones with %v", err, splitErr)
	}
	for _, m := range joined {
		raw = append(raw, m.Raw...)
	}
	return raw
}

// channels sorts a stream's frames by channel: while content is gathered, frames of other channels may overtake it.
func channels(stream []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	if bytes.HasPrefix(stream, []byte("A")) {
		stream = stream[min(8, len(stream)):]
	}
	for r := bufio.NewReader(bytes.NewReader(stream)); ; {
		raw, err := readFrame(r)
		if err != nil {
			return out
		}
		channel := binary.BigEndian.Uint16(raw[1:])
		out[channel] = append(out[channel], raw...)
	}
}

func FuzzPostgres(f *testing.F) {
	f.Add(bytes.Join([][]byte{startup(), pg('P', "s", "BEGIN; x; COMMIT", ""), pg('B', "", "s", ""), pg('E', ""), pg('S'), pg('C', "S"), pg('C')}, nil))
	f.Add(bytes.Join([][]byte{pg('Z', "I"), pg('C', "COMMIT", ""), pg('Z', "I")}, nil))
	f.Add([]byte{0, 0, 0, 8, 4, 210, 22, 47})
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, from := range []Side{Client, Server} {
			if raw := whole(t, func() protocol { return newPostgres() }, from, stream); !bytes.HasPrefix(stream, raw) {
				t.Error("the messages are not what arrived")
			}
		}
	})
}

func FuzzAMQP(f *testing.F) {
	f.Add(append([]byte("AMQP\x00\x00\x09\x01"), publish(1, "key", "body")...))
	f.Add(frame(frameMethod, 1, []byte{0, 60, 0, 60, 1, 't', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 'k'}))
	f.Add(frame(frameMethod, 1, []byte{0, 60, 0, 50, 1, 56, 0, 0, 1, 'k'}))
	f.Fuzz(func(t *testing.T, stream []byte) {
		arrived := channels(stream)
		for channel, raw := range channels(whole(t, func() protocol { return newAMQP() }, Client, stream)) {
			if !bytes.HasPrefix(arrived[channel], raw) {
				t.Errorf("the messages of channel %d are not what arrived", channel)
			}
		}
		messages, _ := read(newAMQP(), Client, bytes.NewReader(stream))
		for _, m := range messages {
			for _, action := range []Action{Nack, Misroute, Block, Unblock} {
				again := m
				again.Raw = bytes.Clone(m.Raw)
				action(&again)
			}
		}
	})
}
