// Package report turns samples into medians, ratios, the table of targets, Markdown and a picture.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Result is one run: a contender, in a variant of a workload, in one round.
type Result struct {
	Workload  string             `json:"workload"`
	Contender string             `json:"contender"`
	Variant   string             `json:"variant,omitempty"` // what is different about it, such as the number of clients
	Round     int                `json:"round"`
	Metrics   map[string]float64 `json:"metrics"`
	Latency   []Bucket           `json:"latency,omitempty"` // all that were timed
}

// Machine is where it ran, without its name.
type Machine struct {
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
}

// File is what a run of the program leaves behind.
type File struct {
	Date     time.Time         `json:"date"`
	Commit   string            `json:"commit"`
	Trial    bool              `json:"trial,omitempty"` // made smaller, to try the program out: judges nothing
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Settings map[string]string `json:"settings"` // of the servers
	About    []string          `json:"about"`    // a line for each contender
	Notes    []string          `json:"notes"`    // what each workload does, and how often
	Results  []Result          `json:"results"`
}

// Read reads files and puts them together; what several of them measured counts from the last one.
func Read(paths []string) (File, error) {
	var all File
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return all, fmt.Errorf("read results: %w", err)
		}
		var f File
		if err := json.Unmarshal(text, &f); err != nil {
			return all, fmt.Errorf("%s does not hold results: %w", path, err)
		}
		all = merge(all, f)
	}
	return all, nil
}

// merge lets the newer file's workloads replace the older one's.
func merge(older, newer File) File {
	fresh := map[string]bool{}
	for _, r := range newer.Results {
		fresh[r.Workload] = true
	}
	var results []Result
	for _, r := range older.Results {
		if !fresh[r.Workload] {
			results = append(results, r)
		}
	}
	newer.Results = append(results, newer.Results...)
	newer.Trial = newer.Trial || older.Trial
	newer.About = union(older.About, newer.About)
	newer.Notes = union(older.Notes, newer.Notes)
	return newer
}

func union(a, b []string) []string {
	out := append([]string(nil), a...)
	seen := map[string]bool{}
	for _, s := range a {
		seen[s] = true
	}
	for _, s := range b {
		if !seen[s] {
			out = append(out, s)
		}
	}
	return out
}

// Write writes the file.
func (f File) Write(path string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}
