package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"github.com/writhq/writ/cmd/bench/report"
)

// machine describes what this runs on, without its name.
func machine() report.Machine {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // what cannot be read is left empty
	release := strings.SplitN(strings.TrimSpace(string(kernel)), ".", 3)
	return report.Machine{
		Cores: runtime.NumCPU(), CPU: field("/proc/cpuinfo", "model name"), Memory: gibibytes(field("/proc/meminfo", "MemTotal")),
		Kernel: strings.Join(release[:min(2, len(release))], "."),
	}
}

// field is the first value of a name in a file of «name: value» lines.
func field(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// gibibytes rounds what /proc/meminfo says.
func gibibytes(memTotal string) string {
	kb, err := strconv.ParseFloat(strings.TrimSuffix(memTotal, " kB"), 64)
	if err != nil {
		return memTotal
	}
	return strconv.FormatFloat(kb/(1<<20), 'f', 0, 64) + " GiB"
}

// commit is the tree that was measured; with «+» if it holds changes that are in no commit.
func commit(ctx context.Context) string {
	head, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	changes, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output()
	name := strings.TrimSpace(string(head))
	if err != nil || len(changes) > 0 {
		name += "+"
	}
	return name
}
