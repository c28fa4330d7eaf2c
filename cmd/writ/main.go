// Command writ is the one binary of Writ: it prepares a database, runs relay and reconciler, and lets people look at
// intents and decide them. Workers are not in it: handlers are the application's own code (package workers).
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
