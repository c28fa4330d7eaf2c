// Package matrix is the crash matrix: every step of an intent's life × every fault, each cell a test of its own on real
// servers and real parts, broken at an exact message by package wire. After the fault the world heals and comes to rest,
// and then row, log, history and an outside ledger must agree: nothing lost, nothing done twice that may not be, what
// nobody knows is flagged.
//
// cells_test.go holds the table, of which docs/proof.md shows a picture.
package matrix

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the table in docs/proof.md")

func TestMain(m *testing.M) {
	if role := os.Getenv("MATRIX_ROLE"); role != "" {
		os.Exit(play(role))
	}
	flag.Parse()
	// The cells wait for heartbeats and timers far more than they work, so more of them than there are processors may run
	// side by side, unless the caller wants it otherwise.
	if !parallelGiven() {
		if err := flag.Set("test.parallel", "6"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m)
}

func parallelGiven() (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	return given
}
