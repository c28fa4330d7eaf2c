// Package graphile carries the worker script of graphile-worker and the exact versions that npm is to install.
package graphile

import (
	_ "embed"
	"encoding/json"
)

//go:embed package.json
var manifest []byte

//go:embed package-lock.json
var lock []byte

//go:embed worker.mjs
var script []byte

// Files are what is laid into the directory that npm installs into, by name.
func Files() map[string][]byte {
	return map[string][]byte{"package.json": manifest, "package-lock.json": lock, "worker.mjs": script}
}

// Version is the pinned version of graphile-worker.
func Version() string {
	var m struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return "(unreadable)"
	}
	return m.Dependencies["graphile-worker"]
}
