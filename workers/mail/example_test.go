package mail_test

import (
	"context"
	"errors"
	"fmt"

	gomail "github.com/wneessen/go-mail"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/mail"
	"github.com/writhq/writ/workers/probe"
)

type welcomeArgs struct {
	Address string `json:"address"`
}

var welcome = intent.Kind[welcomeArgs]{Name: "shop.customer.welcome"}

func ExampleNew() {
	handler, err := mail.New(mail.Config[welcomeArgs]{
		Server: "mx.internal.example:587", Domain: "shop.example",
		Compose: func(_ context.Context, job *workers.Job[welcomeArgs]) (*gomail.Msg, error) {
			m := gomail.NewMsg()
			if err := errors.Join(m.From("shop@shop.example"), m.To(job.Args.Address)); err != nil {
				return nil, workers.Stop(err) // an address that is none will not become one
			}
			m.Subject("Welcome")
			m.SetBodyString(gomail.TypeTextPlain, "Good to have you.")
			return m, nil
		},
		Log: &probe.MailLogConfig[welcomeArgs]{Path: "/var/log/mail.log"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := workers.NewMux()
	workers.Handle(mux, welcome, handler)
	fmt.Println("what nobody knows is looked up:", handler.Probe != nil)
	// Output: what nobody knows is looked up: true
}
