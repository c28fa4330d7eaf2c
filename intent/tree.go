package intent

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/writhq/writ/internal/store"
)

// MaxTree is how many intents [Tree] returns at most, the oldest.
const MaxTree = 10_000

// Tree returns all intents of this database that share a transaction id, the oldest first; id may also be that of any
// intent among them. A ParentID that is not among them is in another application's database, or was pruned. Errors:
// ErrNotFound, ErrNoSchema, or the database's.
func Tree(ctx context.Context, db DB, id ID) ([]Intent, error) {
	rows, err := store.Tree(ctx, db, id, MaxTree)
	if err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	if len(rows) == 0 {
		return nil, &refusal{ErrNotFound, fmt.Sprintf("writ: there is no intent with id or transaction id %s", id)}
	}
	out := make([]Intent, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row, &out[i]); err != nil {
			return nil, fmt.Errorf("tree: %w", err)
		}
	}
	return out, nil
}
