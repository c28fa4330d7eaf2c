// Command bench measures Writ beside its peers on one private Postgres and RabbitMQ: what they carry, how long jobs wait,
// and what a job costs. It ends with the table of targets.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
