package testrun

import (
	"fmt"
	"regexp"
	"strings"
)

// named is a test as documents write it: the directory, a point, and the name, with subtests as go test names them. The module's root is
// called by the module's last word.
var named = regexp.MustCompile("`([a-z0-9_/]+)\\.((?:Test|Example|Fuzz)[^`]*)`")

// Claims holds a document against a record: in each table whose last column is headed «tests» every row must name at least one, and each must
// have passed. It returns how many rows and tests there are, and the faults.
func Claims(doc, module string, passed Record) (rows, tests int, faults []string) {
	within := false
	for n, line := range lines(doc) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		last := strings.TrimSpace(cells[len(cells)-1])
		switch {
		case !strings.HasPrefix(line, "|"):
			within = false
			continue
		case last == "tests":
			within = true
			continue
		case !within || strings.Trim(last, "-:") == "":
			continue
		}
		rows++
		found := named.FindAllStringSubmatch(last, -1)
		if len(found) == 0 {
			faults = append(faults, fmt.Sprintf("line %d: no test is named for «%s»", n+1, strings.TrimSpace(cells[0])))
		}
		for _, f := range found {
			tests++
			path := module + "/" + f[1]
			if strings.HasSuffix(module, "/"+f[1]) {
				path = module
			}
			if !passed[Test{path, f[2]}] {
				faults = append(faults, fmt.Sprintf("line %d: %s.%s did not pass in this run", n+1, f[1], f[2]))
			}
		}
	}
	if rows == 0 {
		faults = append(faults, "there is no table whose last column is headed «tests»")
	}
	return rows, tests, faults
}

func lines(text string) []string { return strings.Split(text, "\n") }
