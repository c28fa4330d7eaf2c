package main

import (
	"testing"

	"github.com/writhq/writ/internal/testkit"
)

func TestKindsSync(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.writ("kinds", "sync").want(t, exitOK, "no kind is declared")
	s.create(map[string]int{"order": 7})
	s.writ("kinds", "sync").golden(t, "kinds_sync")
	s.writ("kinds", "sync", kindName, "-o", "json").golden(t, "kinds_sync_json")
	if n := testkit.Value[int](t, s.db, `SELECT count(*) FROM writ.kind_shop_order_charge WHERE "order" = 7 AND status = 'ready'`); n != 1 {
		t.Errorf("the view has %d rows; want 1", n)
	}
	s.writ("kinds", "sync", "Charge").want(t, exitUsage, "malformed")
	s.writ("kinds").want(t, exitUsage, "say which: list, sync")
	// Taking the schema down and up again takes the views along.
	s.writ("migrate", "down", "--yes").want(t, exitOK)
	s.writ("migrate", "up").want(t, exitOK)
	s.writ("kinds", "sync").want(t, exitOK, "no kind is declared")
}
