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
	consumers := func(queue string) int { return a.look(queue).Consumers }
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

func TestSetPrefetch(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	one, two := a.name("one"), a.name("two")
	c, err := NewConsumer(ConsumerConfig{Config: Config{URL: brokerURL(t)}, Queues: []string{one}})
	if err != nil {
		t.Fatal(err)
	}
	if c.SetPrefetch(map[string]int{one: -2}) == nil || c.SetPrefetch(map[string]int{one: 65536}) == nil {
		t.Error("a prefetch that is none: accepted")
	}
	r := run(t, ConsumerConfig{Queues: []string{one, two}, Prefetch: 5})
	set := func(limits map[string]int) {
		t.Helper()
		if err := r.SetPrefetch(limits); err != nil {
			t.Fatal(err)
		}
	}
	ready := func(queue string) int { return a.look(queue).Messages }
	set(map[string]int{one: Held, two: 2})
	eventually(t, "one is declared and not consumed", func() bool {
		q := a.look(one)
		return q.Name == one && q.Consumers == 0 && a.look(two).Consumers == 1
	})
	a.put(one, numbers(9)...)
	a.put(two, numbers(9)...)
	eventually(t, "two are here", func() bool { return len(r.Deliveries()) == 2 && ready(one) == 9 && ready(two) == 7 })
	set(map[string]int{two: Held})
	eventually(t, "one is consumed again", func() bool { return len(r.Deliveries()) == 7 })
	for range 2 {
		r.ack(r.next()) // what was here when it was held
	}
	eventually(t, "five of the one are here, of the other none", func() bool { return len(r.Deliveries()) == 5 && ready(one) == 4 && ready(two) == 7 })
	set(map[string]int{one: Held})
	eventually(t, "the other is consumed instead", func() bool { return len(r.Deliveries()) == 10 })
	var got []string
	for range 12 {
		d := r.next()
		got = append(got, d.Queue)
		r.ack(d)
	}
	eventually(t, "the rest waits", func() bool { return ready(one) == 4 && ready(two) == 0 })
	if got[0] != one || got[11] != two {
		t.Errorf("came from %v", got)
	}
	set(nil)
	for range 4 {
		r.ack(r.next())
	}
	r.stop()
}
