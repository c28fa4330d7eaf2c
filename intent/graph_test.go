package intent_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestGraph: an application that only creates intents links neither the broker's client, the CLI, goose nor metrics.
func TestGraph(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "github.com/writhq/writ/intent").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 20 {
		t.Fatalf("go list says %q", out)
	}
	for _, dep := range deps {
		for _, heavy := range []string{"amqp091", "spf13/cobra", "pressly/goose", "prometheus", "go-pretty", "writ/workers", "writ/dispatch", "internal/rabbit"} {
			if strings.Contains(dep, heavy) {
				t.Errorf("package intent links %s", dep)
			}
		}
	}
}
