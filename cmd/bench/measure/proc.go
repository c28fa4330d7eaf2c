// Package measure reads what a run costs: CPU seconds of processes from /proc, and statements, WAL and buffers from
// Postgres' own counters.
package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat. Linux fixes it at 100 a second for user space (USER_HZ).
const tick = 10 * time.Millisecond

// Stat is what is used of a line of /proc/PID/stat.
type Stat struct {
	Parent int
	Own    time.Duration // user and system time of the process itself
	Reaped time.Duration // the same of its children that have ended and were waited for
}

// ParseStat reads a line of /proc/PID/stat. The second field, the program's name in parentheses, may itself hold spaces
// and parentheses.
func ParseStat(line []byte) (Stat, error) {
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return Stat{}, errors.New("no program name in /proc/PID/stat")
	}
	f := strings.Fields(string(line[end+1:]))
	const parent, utime, stime, cutime, cstime = 1, 11, 12, 13, 14 // counted from the third field
	if len(f) <= cstime {
		return Stat{}, fmt.Errorf("/proc/PID/stat has %d fields after the name; want more than %d", len(f), cstime)
	}
	var ticks [cstime + 1]int64
	for _, i := range []int{parent, utime, stime, cutime, cstime} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return Stat{}, fmt.Errorf("field %d of /proc/PID/stat: %w", i+3, err)
		}
		ticks[i] = n
	}
	return Stat{
		Parent: int(ticks[parent]),
		Own:    time.Duration(ticks[utime]+ticks[stime]) * tick,
		Reaped: time.Duration(ticks[cutime]+ticks[cstime]) * tick,
	}, nil
}

// CPU is the time that a process and all its children have used so far, those that ended included: Postgres forks a
// backend for each connection, and RabbitMQ has helpers.
func CPU(pid int) (time.Duration, error) {
	all, err := stats()
	if err != nil {
		return 0, err
	}
	root, ok := all[pid]
	if !ok {
		return 0, fmt.Errorf("process %d is gone", pid)
	}
	return tree(all, pid, root), nil
}

func tree(all map[int]Stat, pid int, s Stat) time.Duration {
	sum := s.Own + s.Reaped
	for child, c := range all {
		if c.Parent == pid && child != pid {
			sum += tree(all, child, c)
		}
	}
	return sum
}

// stats reads /proc once; processes that end meanwhile are left out.
func stats() (map[int]Stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := make(map[int]Stat, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		s, err := ParseStat(line)
		if err != nil {
			return nil, err
		}
		all[pid] = s
	}
	return all, nil
}

// Resident is a process's resident memory in bytes.
func Resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("read resident memory: %w", err)
	}
	return parseResident(string(text), int64(os.Getpagesize()))
}

func parseResident(statm string, page int64) (int64, error) {
	f := strings.Fields(statm)
	if len(f) < 2 {
		return 0, fmt.Errorf("statm has %d fields", len(f))
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resident pages: %w", err)
	}
	return pages * page, nil
}
