package workers

import (
	"encoding/json"
	"fmt"
	"time"
)

// readArgs decodes arguments that may be of another version than the kind's, and holds them to its contract. What does not
// fit is stopped, for it never will; what is newer than this worker comes again, for another one.
func readArgs[T any](r *registration, version int, args json.RawMessage, into *T) error {
	if version > r.ArgsVersion {
		return &snoozeError{
			d: r.newer.pause(time.Now()), newer: true,
			why: fmt.Sprintf("args are of version %d, and this worker knows kind %s up to version %d: left to a newer one", version, r.Name, r.ArgsVersion),
		}
	}
	if version < r.ArgsVersion && r.upgrade != nil {
		upgraded, err := upgradeSafely(r, version, args)
		if err != nil {
			return Stop(fmt.Errorf("args of version %d cannot be brought up to version %d: %w", version, r.ArgsVersion, err))
		}
		args = upgraded
	}
	if r.Schema != nil {
		if err := r.Schema.Check(args); err != nil {
			return Stop(fmt.Errorf("args do not fit the schema of kind %s: %w", r.Name, err))
		}
	}
	if err := json.Unmarshal(args, into); err != nil {
		return Stop(fmt.Errorf("args do not fit %T: %w", *into, err))
	}
	return nil
}

// upgradeSafely turns a panic into an error: nothing has been done yet.
func upgradeSafely(r *registration, version int, args json.RawMessage) (out json.RawMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the upgrade panicked: %v", p)
		}
	}()
	return r.upgrade(version, args)
}
