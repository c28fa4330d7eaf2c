package probe

import (
	"context"
	"fmt"
	"net"
	"net/textproto"
	"regexp"
	"strings"
	"time"
)

// Written returns when a log line was written, as syslog notes it at its beginning: RFC 3339, or the old form without a
// year, in local time. Zero: it does not say.
func Written(line string) time.Time {
	first, _, _ := strings.Cut(line, " ")
	if at, err := time.Parse(time.RFC3339Nano, first); err == nil {
		return at
	}
	if len(line) < len(time.Stamp) {
		return time.Time{}
	}
	at, err := time.ParseInLocation(time.Stamp, line[:len(time.Stamp)], time.Local)
	if err != nil {
		return time.Time{}
	}
	// The year is that in which it is not in the future; the first line of a year may be read in the last second of the old one.
	now := time.Now()
	at = at.AddDate(now.Year(), 0, 0)
	if at.After(now.Add(24 * time.Hour)) {
		at = at.AddDate(-1, 0, 0)
	}
	return at
}

// A line begins with its time, the host, and the tag, which is syslog_name/service/program: each instance of Postfix, and some
// services, have a name of their own.
const postfixTag = `^(?:[A-Z][a-z]{2} [ \d]\d \S+|\S+) \S+ [^\s\[]+/`

var (
	postfixLine = regexp.MustCompile(postfixTag + `(?:anvil|bounce|cleanup|error|lmtp|local|master|oqmgr|pickup|pipe|postscreen|proxymap|qmgr|qmqpd|scache|` +
		`smtp|smtpd|tlsmgr|tlsproxy|trivial-rewrite|verify|virtual)\[\d+\]: `)
	postfixID     = regexp.MustCompile(postfixTag + `cleanup\[\d+\]: ([0-9A-Za-z]+): (?:resent-)?message-id=<?([^<>\s]+)>?`)
	postfixQueued = regexp.MustCompile(postfixTag + `o?qmgr\[\d+\]: ([0-9A-Za-z]+): from=<[^>]*>, size=\d+`)
)

// lost is what loggers say of lines that they dropped: rsyslog's imuxsock and imjournal, journald.
var lost = regexp.MustCompile(`begin to drop messages|lost \d+ messages|\d+ messages lost|Suppressed \d+ messages`)

// Postfix returns a reader of Postfix' log. A mail is taken when the queue manager has it; a Message-ID that only cleanup has
// met may belong to a mail that was broken off or refused in the end.
func Postfix() func(line string) Line {
	const most = 10_000 // mails between cleanup and the queue manager at once
	ids := map[string]string{}
	var order []string
	return func(line string) Line {
		l := Line{At: Written(line), Server: postfixLine.MatchString(line)}
		l.Lost = !l.Server && lost.MatchString(line)
		if m := postfixID.FindStringSubmatch(line); m != nil {
			if _, there := ids[m[1]]; !there {
				order = append(order, m[1])
			}
			ids[m[1]] = m[2]
			if len(order) > most {
				delete(ids, order[0])
				order = order[1:]
			}
			l.MessageID = m[2]
			return l
		}
		if m := postfixQueued.FindStringSubmatch(line); m != nil {
			l.MessageID = ids[m[1]] // not forgotten: a deferred mail comes by again
			l.Taken = l.MessageID != ""
		}
		return l
	}
}

// eximTook is the arrival of a mail; its fields follow the sender.
var eximTook = regexp.MustCompile(`^\S+ \S+ (?:[+-]\d{4} )?(?:\[\d+\] )?\S+ <= .*? id=(\S+)`)

// Exim returns a reader of Exim's main log, which it alone writes, and whose lines begin with a date and time, in local time.
func Exim() func(line string) Line {
	return func(line string) Line {
		var l Line
		if len(line) >= len(time.DateTime) {
			if at, err := time.ParseInLocation(time.DateTime, line[:len(time.DateTime)], time.Local); err == nil {
				l.At, l.Server = at, true
			}
		}
		fields, _, _ := strings.Cut(line, ` T="`) // what follows is the subject, which anybody may write
		if m := eximTook.FindStringSubmatch(fields); m != nil {
			l.MessageID, l.Taken = m[1], true
		}
		return l
	}
}

// Greet returns a function for MailLogConfig.Wake: it connects to an SMTP server (host:port), greets it, and says goodbye,
// which servers log.
func Greet(addr string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		text := textproto.NewConn(conn)
		if _, _, err := text.ReadResponse(220); err != nil {
			return fmt.Errorf("its greeting: %w", err)
		}
		for _, say := range []struct {
			line string
			code int
		}{{"EHLO localhost", 250}, {"QUIT", 221}} {
			if err := text.PrintfLine("%s", say.line); err != nil {
				return err
			}
			if _, _, err := text.ReadResponse(say.code); err != nil {
				return fmt.Errorf("its answer to %s: %w", say.line, err)
			}
		}
		return nil
	}
}
