// Package wire is a fault proxy: it stands between a client and Postgres or RabbitMQ, reads the messages of both
// directions one by one, and breaks things at exactly the one that a rule names: before a COMMIT reaches the server, after
// it was applied and before its answer arrives, at a publish, a confirm, a return, a delivery, an ack. The product under
// test has no hooks for it; it is only given another address.
//
// It is for tests: it speaks no TLS (a client that asks for it is told that there is none), and it trusts its peers.
package wire

import (
	"strings"
	"time"
)

// Side is an end of a connection.
type Side int

// The sides that a message can come from.
const (
	Client Side = iota + 1
	Server
)

// Message is what a rule looks at: one message of Postgres, or one method of AMQP with its content. Which fields are set
// follows from the protocol.
type Message struct {
	From Side
	Raw  []byte // as on the wire; an action may put something else in its place

	// Postgres. Statement is the text that this message of the client has the server execute, with prepared statements
	// and portals followed to their text. Commits are the statements of the transaction that the server commits when it
	// gets this message: at COMMIT, or at the Sync behind a statement outside of any BEGIN. Committed are those of the
	// transactions that this answer of the server reports as committed; it holds all from the word COMMIT up to the
	// server's readiness for the next query.
	Statement string
	Commits   []string
	Committed []string

	// AMQP. Method is its name, such as «basic.publish»; Key the routing key of a publish, return or delivery; Body the
	// content's.
	Method string
	Key    string
	Body   []byte

	answer []byte          // goes back to the sender, and the message nowhere
	ended  <-chan struct{} // closed with the proxy
}

// Matcher chooses messages. It is called for one message at a time, in the order in which they pass, and must not call
// the proxy; one that never says yes just looks.
type Matcher func(*Message) bool

// Executes matches a statement that holds text, on its way to the server.
func Executes(text string) Matcher {
	return func(m *Message) bool { return m.Statement != "" && strings.Contains(m.Statement, text) }
}

// Commits matches what commits a transaction with a statement that holds text, on its way to the server.
func Commits(text string) Matcher { return func(m *Message) bool { return holds(m.Commits, text) } }

// Committed matches the answer that tells that such a transaction was committed.
func Committed(text string) Matcher { return func(m *Message) bool { return holds(m.Committed, text) } }

func holds(statements []string, text string) bool {
	for _, s := range statements {
		if strings.Contains(s, text) {
			return true
		}
	}
	return false
}

// The moments of AMQP that the hints go through.
var (
	Publish = Sends(Client, "basic.publish")
	Confirm = Sends(Server, "basic.ack")
	Return  = Sends(Server, "basic.return")
	Deliver = Sends(Server, "basic.deliver")
	Ack     = Sends(Client, "basic.ack")
)

// Sends matches a method by who sends it and its name, such as «connection.close».
func Sends(from Side, method string) Matcher {
	return func(m *Message) bool { return m.From == from && m.Method == method }
}

// Carrying narrows a matcher to content that holds text, such as an intent's id.
func Carrying(text string, of Matcher) Matcher {
	return func(m *Message) bool { return of(m) && strings.Contains(string(m.Body), text) }
}

// Fate is what becomes of a message that a rule matched.
type Fate int

// The fates of a message. What came before it is delivered in all cases.
const (
	Passed    Fate = iota // delivered, as its Raw is now
	Swallowed             // never delivered; the connection goes on
	Severed               // never delivered; the connection is cut on both sides
)

// Action is what a rule does with its message. It may block: only this direction of the connection waits for it.
type Action func(*Message) Fate

// Cut ends the connection instead of delivering the message.
func Cut(*Message) Fate { return Severed }

// Swallow delivers everything but the message.
func Swallow(*Message) Fate { return Swallowed }

// Delay delivers the message, and all behind it, later.
func Delay(d time.Duration) Action {
	return func(m *Message) Fate {
		late := time.NewTimer(d)
		defer late.Stop()
		select {
		case <-late.C:
		case <-m.ended:
		}
		return Passed
	}
}

// Call calls f while the message is held, then does what then says: Call(kill, Cut) ends a process at this message.
func Call(f func(), then Action) Action {
	return func(m *Message) Fate {
		f()
		return then(m)
	}
}

// Pass delivers the message.
func Pass(*Message) Fate { return Passed }

// Rule does something at one message. The zero Nth is the first that matches.
type Rule struct {
	At  Matcher
	Nth int // counted from 1 over all connections of the proxy, from when the rule was given on
	Do  Action
}
