package store_test

import (
	"context"
	"testing"

	writsql "github.com/writhq/writ/sql"

	"github.com/writhq/writ/internal/testkit"
)

// TestStatements prepares every engine statement on the real server, so that none is first parsed at night.
func TestStatements(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	conn, err := db.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, name := range writsql.Statements() {
		if _, err := conn.Conn().Prepare(context.Background(), name, writsql.Statement(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
