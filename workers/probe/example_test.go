package probe_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/probe"
)

type ChargeArgs struct {
	Cents int64 `json:"cents"`
}

var Charge = intent.Kind[ChargeArgs]{Name: "shop.order.charge"}

// A kind asks its provider for the charge under the idempotency key. An empty list means that there is none.
func ExampleHTTP() {
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"data": [{"id": "ch_71", "status": "succeeded"}]}`)
	}))
	defer provider.Close()

	ask, err := probe.HTTP(probe.HTTPConfig[ChargeArgs]{
		URL: provider.URL + "/charges?idempotency_key={key}",
		Rules: []probe.Rule{
			{Field: "data.0.status", Equals: []string{"succeeded"}, Is: workers.WasDone},
			{Field: "data.#", Equals: []string{"0"}, Is: workers.WasNotDone},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := workers.NewMux()
	workers.Handle(mux, Charge, workers.Handler[ChargeArgs]{
		Do:      func(context.Context, *workers.Job[ChargeArgs]) error { return nil },
		Probe:   ask,
		Probing: workers.Probing{Timeout: 10 * time.Second},
	})

	answer, err := ask(context.Background(), &workers.Attempt[ChargeArgs]{Facts: workers.Facts{Key: "k1"}})
	fmt.Println(answer.Finding, err)
	// Output: done <nil>
}
