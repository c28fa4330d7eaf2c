package intenttest_test

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/writhq/writ/intent/intenttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestGraph: the kit ships to users, so it brings neither migrations nor the helpers of Writ's own tests.
func TestGraph(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "github.com/writhq/writ/intent/intenttest").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 20 {
		t.Fatalf("go list says %q", out)
	}
	for _, dep := range deps {
		for _, foreign := range []string{"writ/migrations", "pressly/goose", "writ/internal/testkit", "writ/internal/devstack", "writ/internal/proof", "writ/dispatch", "writ/reconciler", "spf13/cobra", "google/go-cmp", "pgregory.net/rapid", "goleak"} {
			if strings.Contains(dep, foreign) {
				t.Errorf("package intenttest links %s", dep)
			}
		}
		if dep == "testing" {
			t.Error("package intenttest links testing, and with it its flags")
		}
	}
}

// failing is a test that fails, so that it can be seen what it says.
type failing struct {
	intenttest.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// fails runs what must end the test, and returns what it says.
func fails(t *testing.T, do func(intenttest.TB)) string {
	t.Helper()
	f := &failing{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(f)
	}()
	<-done
	if f.said == "" {
		t.Error("it did not fail")
	}
	return f.said
}
