package mailserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/writhq/writ/examples/comments/mailserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type bundle struct {
	*mailserver.Server
	addr, dir string
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{dir: t.TempDir()}
	box, err := mailserver.Open(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.Server, b.addr = mailserver.New(box), l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-served, box.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bundle) order(t *testing.T, o mailserver.Order) {
	t.Helper()
	raw, err := json.Marshal(o)
	if err == nil {
		err = b.Order(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bundle) send(to, key string) error {
	text := fmt.Sprintf("Message-ID: <%s@blog.example>\r\nTo: %s\r\nSubject: hello\r\n\r\nhello\r\n", key, to)
	return smtp.SendMail(b.addr, nil, "blog@blog.example", []string{to}, []byte(text))
}

func (b *bundle) stored(t *testing.T) []string {
	t.Helper()
	entries, err := mailserver.ReadLog(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, e := range entries {
		keys = append(keys, e.Key)
	}
	return keys
}

func TestModes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		order  mailserver.Order
		code   int // of the refusal; 0: taken; -1: no answer
		stored int
	}{
		{"Accept", mailserver.Order{}, 0, 1},
		{"Refuse", mailserver.Order{Refuse: "ann@blog.example"}, 550, 0},
		{"RefuseAnother", mailserver.Order{Refuse: "bob@blog.example"}, 0, 1},
		{"Later", mailserver.Order{Mode: mailserver.Later}, 451, 0},
		{"Reject", mailserver.Order{Mode: mailserver.Reject}, 550, 0},
		{"Busy", mailserver.Order{Mode: mailserver.Busy}, 451, 0},
		{"Greedy", mailserver.Order{Mode: mailserver.Greedy}, -1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.order(t, tt.order)
			err := b.send("ann@blog.example", "k1")
			var reply *textproto.Error
			code := 0
			switch {
			case errors.As(err, &reply):
				code = reply.Code
			case err != nil:
				code = -1
			}
			if got := len(b.stored(t)); code != tt.code || got != tt.stored {
				t.Errorf("got code %d (%v) and %d mails; want %d and %d", code, err, got, tt.code, tt.stored)
			}
		})
	}
}

func TestSlow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.order(t, mailserver.Order{Mode: mailserver.Slow})
	sent := make(chan error, 1)
	go func() { sent <- b.send("ann@blog.example", "k1") }()
	b.order(t, mailserver.Order{})
	if err := <-sent; err != nil || len(b.stored(t)) != 1 {
		t.Errorf("after the mode changed: %v, stored %v; want one mail", err, b.stored(t))
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	b := setup(t)
	victim := exec.Command("sleep", "60")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = victim.Process.Kill() })
	b.order(t, mailserver.Order{Kill: &mailserver.Kill{PID: victim.Process.Pid, To: "kay@blog.example", Others: 2}})
	others := make(chan error, 2)
	for i := range 2 {
		go func() { others <- b.send("ann@blog.example", fmt.Sprint("other", i)) }()
	}
	if err := b.send("kay@blog.example", "last"); err == nil {
		t.Error("the last mail was answered; want no answer")
	}
	for range 2 {
		if err := <-others; err == nil {
			t.Error("another mail in flight was answered; want no answer")
		}
	}
	_ = victim.Wait()
	if ws := victim.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Errorf("the victim ended with %v; want SIGKILL", victim.ProcessState)
	}
	if got := b.stored(t); len(got) != 2 {
		t.Errorf("stored %v; want the last and one of the others", got)
	}
	if err := b.send("kay@blog.example", "after"); err != nil {
		t.Errorf("it kills once, but then: %v", err)
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	if err := setup(t).Order([]byte("nonsense")); err == nil {
		t.Error("an order that is no JSON was taken")
	}
}
