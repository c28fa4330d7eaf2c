package intent_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

func TestKind_limits(t *testing.T) {
	t.Parallel()
	kind := intent.Kind[NotifyArgs]{Name: "blog.comment.notify", Limits: []intent.Limit{{Starts: 200}, {Key: "subject:user", Starts: 5, Per: time.Minute, Burst: 5, Running: 2}}}
	settings, err := kind.Settings()
	if err != nil {
		t.Fatal(err)
	}
	want := []intent.Limit{{Starts: 200, Per: time.Second, Burst: 1}, {Key: "subject:user", Starts: 5, Per: time.Minute, Burst: 5, Running: 2}}
	if diff := cmp.Diff(want, settings.Limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	for says, limits := range map[string][]intent.Limit{
		"neither Starts nor Running": {{Per: time.Minute}},
		"more than one":              {{Starts: 1}, {Running: 1}},
		"1s to 31 days":              {{Starts: 1, Per: time.Millisecond}},
		"no place of a key":          {{Starts: 1, Key: "customer"}},
		"Burst is 9":                 {{Starts: 2, Burst: 9}},
		"must not be negative":       {{Starts: -1, Running: 3}},
		"a million a second":         {{Starts: 2_000_000}},
	} {
		kind.Limits = limits
		if _, err := kind.Settings(); err == nil || !strings.Contains(err.Error(), says) || !errors.Is(err, intent.ErrInvalid) {
			t.Errorf("%+v: %v; want %q", limits, err, says)
		}
	}
}

func TestSetLimit(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	ctx := context.Background()
	word := intent.Word{Actor: "ann", Why: "the provider is slow"}
	const kind = "blog.comment.notify"
	for _, l := range []intent.Limit{{Starts: 10, Per: time.Minute}, {Key: "args.user", Running: 2}} {
		if err := intent.SetLimit(ctx, db, kind, l, word); err != nil {
			t.Fatal(err)
		}
	}
	all, err := intent.Limits(ctx, db)
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if got := all[0]; got.Per != intent.PerKind || got.Starts != 10 || got.Limit.Per != time.Minute || got.Burst != 1 || got.SetBy != "ann" || got.Source != "person" {
		t.Errorf("%+v", got)
	}
	if got := all[1]; got.Per != intent.PerKey || got.Key != "args.user" || got.Running != 2 || got.Starts != 0 {
		t.Errorf("%+v", got)
	}
	if err := intent.ClearLimit(ctx, db, kind, intent.PerKey, word); err != nil {
		t.Error(err)
	}
	if err := intent.ClearLimit(ctx, db, kind, intent.PerKey, word); !errors.Is(err, intent.ErrIllegal) {
		t.Errorf("cleared twice: %v", err)
	}
	for _, err := range []error{
		intent.SetLimit(ctx, db, kind, intent.Limit{Starts: 10, Burst: 11}, word),
		intent.SetLimit(ctx, db, "blog", intent.Limit{Starts: 10}, word),
		intent.SetLimit(ctx, db, kind, intent.Limit{Starts: 10}, intent.Word{Actor: "ann", Why: "no"}),
	} {
		if !errors.Is(err, intent.ErrInvalid) {
			t.Errorf("%v; want ErrInvalid", err)
		}
	}
}
