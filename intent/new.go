package intent

import (
	"context"
	"errors"
	"fmt"

	"github.com/writhq/writ/internal/store"
)

// New is an intent that is to be created, of any kind: what a subscription returns. Made by [Kind.New].
type New struct {
	kind    string
	opts    Opts
	request func(Opts) (store.Request, error)
}

// New describes an intent without creating it; it is checked when it is created. See [CreateAll].
func (k Kind[T]) New(args T, opts Opts) New {
	return New{kind: k.Name, opts: opts, request: func(o Opts) (store.Request, error) { return k.request(args, o) }}
}

// Kind is the name of its kind.
func (n New) Kind() string { return n.kind }

// CreateAll writes intents of any kinds in tx, a thousand a statement, and returns what became of each, in order. If one is
// invalid nothing is sent, and the error names its index. Otherwise as Kind.CreateMany.
func CreateAll(ctx context.Context, tx Tx, all []New) ([]Created, error) {
	requests := make([]store.Request, len(all))
	var faults []error
	for i, n := range all {
		if n.request == nil {
			faults = append(faults, fmt.Errorf("intent %d: %w", i, &InvalidError{Field: "kind", Problem: "is missing", Fix: "make it with Kind.New"}))
			continue
		}
		opts, err := caused(ctx, tx, n.kind, n.opts)
		if err == nil {
			requests[i], err = n.request(opts)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("intent %d: %w", i, err))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return createMany(ctx, tx, requests)
}
