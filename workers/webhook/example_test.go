package webhook_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/intent/intenttest"
	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/webhook"
)

type paidArgs struct {
	InvoiceID int64 `json:"invoice_id"`
}

// Receivers drop a webhook-id that they know, so a second delivery does no harm. The times are those that Standard
// Webhooks recommends.
var tell = intent.Kind[paidArgs]{
	Name: "shop.invoice.tell", Idempotent: true, Timeout: 20 * time.Second,
	MaxAttempts: 12, Backoff: intent.Backoff{Min: 5 * time.Second, Max: 24 * time.Hour, Factor: 4},
}

func ExampleNew() {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Println("signed:", webhook.Verify(r.Header, []string{secret}, time.Now(), body) == nil)
		w.WriteHeader(http.StatusGone)
	}))
	defer receiver.Close()

	handler, err := webhook.New(webhook.Config[paidArgs]{
		Request: func(_ context.Context, job *workers.Job[paidArgs]) (*webhook.Request, error) {
			return &webhook.Request{ // in life: the customer's URL and secrets, from the database
				URL: receiver.URL, Secrets: []string{secret},
				Body: webhook.Event{Type: "invoice.paid", Timestamp: job.RequestedAt(), Data: job.Args},
			}, nil
		},
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, PlainHTTP: true, // in life: neither
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := workers.NewMux()
	workers.Handle(mux, tell, handler)

	result := intenttest.Do(exampleT{}, tell, handler, intenttest.Job[paidArgs]{Args: paidArgs{InvoiceID: 7}})
	fmt.Println(result.Status, result.Why)
	// Output:
	// signed: true
	// error stopped
}

// exampleT stands in for a *testing.T, which examples have not.
type exampleT struct{}

func (exampleT) Helper()                           {}
func (exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (exampleT) Logf(string, ...any)               {}
func (exampleT) Context() context.Context          { return context.Background() }
func (exampleT) Cleanup(func())                    {}
