package main

import (
	"encoding/json"

	"github.com/writhq/writ/examples/comments/mailserver"
	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/probe"
)

// askMailLog is the probe of [Notify]: it looks into the mail server's log for the Message-ID, which is the idempotency key.
// That the log has none means that the mail was not taken only if the server has written to it since: so it is greeted,
// which it logs.
func askMailLog(log string, server Mailer) (workers.Probe[NotifyArgs], error) {
	return probe.MailLog(probe.MailLogConfig[NotifyArgs]{
		Path: log, Line: readLine, Wake: probe.Greet(string(server)),
		Skew: -1, // one machine, one clock
	})
}

// readLine reads a line of the mail server's log.
func readLine(line string) probe.Line {
	var e mailserver.Entry
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		return probe.Line{}
	}
	return probe.Line{At: e.At, MessageID: e.Key, Taken: e.Key != ""}
}
