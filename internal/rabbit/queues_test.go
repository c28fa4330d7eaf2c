package rabbit

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestSetQueues_FollowsTheSet(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	one, two := a.name("one"), a.name("two")
	r := run(t, ConsumerConfig{})
	set := func(queues ...string) {
		t.Helper()
		if err := r.SetQueues(queues); err != nil {
			t.Fatal(err)
		}
	}
	consumers := func(queue string) int {
		ch, err := a.conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ch.Close() }()
		q, _ := ch.QueueDeclarePassive(queue, true, false, false, false, nil) // or it does not exist yet
		return q.Consumers
	}
	set(one)
	eventually(t, "one is consumed", func() bool { return consumers(one) == 1 })
	a.put(one, "a")
	held := r.expect("a")
	set(two)
	// One is left before two is taken. Its consumer still counts while it has a delivery to ack.
	eventually(t, "two instead of one", func() bool { return consumers(two) == 1 })
	a.put(one, "b")
	a.put(two, "c")
	r.ack(r.expect("c"))
	r.ack(held)
	set(one, two)
	r.ack(r.expect("b"))
	if err := r.SetQueues([]string{""}); err == nil {
		t.Error("an empty name: accepted")
	}
	r.stop()
}

func TestRun_OneBadQueueDoesNotStopTheRest(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	bad, good := a.declare("bad", amqp.Table{}), a.name("good") // a classic queue cannot become a quorum queue
	r := run(t, ConsumerConfig{Queues: []string{bad, good}})
	eventually(t, "a reason", func() bool { s := r.State(); return s.Connected && s.Reason != "" })
	a.put(good, "x")
	r.ack(r.expect("x"))
	a.delete(bad)
	eventually(t, "repaired", func() bool { return r.State() == State{Connected: true} })
	a.put(bad, "y")
	r.ack(r.expect("y"))
	r.stop()
}
