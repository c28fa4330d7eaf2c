package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Types of AMQP 0-9-1 frames, and the byte that ends each.
const (
	frameMethod = 1
	frameHeader = 2
	frameBody   = 3
	frameEnd    = 0xCE

	frameHead = 7 // type, channel, size
)

// methods that rules speak of. All others are named by their numbers, such as «60.31».
var methods = map[[2]uint16]string{
	{10, 10}: "connection.start", {10, 11}: "connection.start-ok", {10, 30}: "connection.tune", {10, 31}: "connection.tune-ok",
	{10, 40}: "connection.open", {10, 41}: "connection.open-ok", {10, 50}: "connection.close", {10, 51}: "connection.close-ok",
	{10, 60}: "connection.blocked", {10, 61}: "connection.unblocked",
	{20, 10}: "channel.open", {20, 11}: "channel.open-ok", {20, 40}: "channel.close", {20, 41}: "channel.close-ok",
	{50, 10}: "queue.declare", {50, 11}: "queue.declare-ok",
	{60, 10}: "basic.qos", {60, 20}: "basic.consume", {60, 21}: "basic.consume-ok", {60, 30}: "basic.cancel",
	{60, 40}: "basic.publish", {60, 50}: "basic.return", {60, 60}: "basic.deliver", {60, 71}: "basic.get-ok",
	{60, 80}: "basic.ack", {60, 90}: "basic.reject", {60, 120}: "basic.nack",
	{85, 10}: "confirm.select", {85, 11}: "confirm.select-ok",
}

// amqp follows one connection. A method that has content makes one message with it: header and body frames.
type amqp struct{ streams [2]stream }

// stream is one direction; only its own goroutine touches it.
type stream struct {
	started bool
	partial map[uint16]*Message // by channel: methods whose content is not complete
	missing map[uint16]uint64   // bytes of content still to come
}

func newAMQP() *amqp {
	var a amqp
	for i := range a.streams {
		a.streams[i] = stream{partial: map[uint16]*Message{}, missing: map[uint16]uint64{}}
	}
	return &a
}

func (a *amqp) next(from Side, r *bufio.Reader) (*Message, error) {
	s := &a.streams[from-Client]
	if !s.started {
		s.started = true
		head, err := r.Peek(1)
		if err != nil {
			return nil, err
		}
		if head[0] == 'A' { // «AMQP» and a version: the client's first words, and a broker's that knows another one
			raw := make([]byte, 8)
			_, err := io.ReadFull(r, raw)
			return &Message{From: from, Raw: raw}, err
		}
	}
	for {
		raw, err := readFrame(r)
		if err != nil {
			return nil, err
		}
		if m, err := s.follow(from, raw); m != nil || err != nil {
			return m, err
		}
	}
}

// readFrame reads one frame, head and end included.
func readFrame(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(frameHead)
	if err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[3:])
	if size > most {
		return nil, fmt.Errorf("wire: a frame of %d bytes: this is not AMQP", size)
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, frameHead+int64(size)+1); err != nil {
		return nil, err
	}
	raw := b.Bytes()
	if raw[len(raw)-1] != frameEnd {
		return nil, fmt.Errorf("wire: a frame of type %d does not end as one: this is not AMQP", raw[0])
	}
	return raw, nil
}

// follow makes messages of frames; nil: the message is not complete.
func (s *stream) follow(from Side, raw []byte) (*Message, error) {
	channel, payload := binary.BigEndian.Uint16(raw[1:]), raw[frameHead:len(raw)-1]
	m := s.partial[channel]
	switch {
	case m != nil && raw[0] == frameHeader && len(payload) >= 12:
		m.Raw = append(m.Raw, raw...)
		s.missing[channel] = binary.BigEndian.Uint64(payload[4:])
	case m != nil && raw[0] == frameBody:
		m.Raw, m.Body = append(m.Raw, raw...), append(m.Body, payload...)
		s.missing[channel] -= min(s.missing[channel], uint64(len(payload)))
	case m != nil:
		return nil, fmt.Errorf("wire: the content of %s was broken off by a frame of type %d", m.Method, raw[0])
	case raw[0] == frameMethod && len(payload) >= 4:
		m = &Message{From: from, Raw: raw}
		if m.Method, m.Key = method(payload); !hasContent(m.Method) {
			return m, nil
		}
		s.partial[channel] = m
		return nil, nil
	default: // a heartbeat, or what the peer will refuse
		return &Message{From: from, Raw: raw}, nil
	}
	if s.missing[channel] > 0 {
		return nil, nil
	}
	delete(s.partial, channel)
	delete(s.missing, channel)
	return m, nil
}

func hasContent(method string) bool {
	switch method {
	case "basic.publish", "basic.return", "basic.deliver", "basic.get-ok":
		return true
	}
	return false
}

// method reads a method's name, and the routing key of those that have content.
func method(payload []byte) (name, key string) {
	class, id := binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:])
	name = methods[[2]uint16{class, id}]
	if name == "" {
		name = fmt.Sprintf("%d.%d", class, id)
	}
	args := payload[4:]
	switch name {
	case "basic.publish": // reserved, exchange, key
		_, args = shortstr(skip(args, 2))
		key, _ = shortstr(args)
	case "basic.return": // code, text, exchange, key
		_, args = shortstr(skip(args, 2))
		_, args = shortstr(args)
		key, _ = shortstr(args)
	case "basic.deliver": // consumer, tag, redelivered, exchange, key
		_, args = shortstr(args)
		_, args = shortstr(skip(args, 9))
		key, _ = shortstr(args)
	}
	return name, key
}

func skip(b []byte, n int) []byte { return b[min(n, len(b)):] }

func shortstr(b []byte) (s string, rest []byte) {
	if len(b) == 0 {
		return "", nil
	}
	end := min(1+int(b[0]), len(b))
	return string(b[1:end]), b[end:]
}

// Nack turns a confirm into a refusal: basic.ack and basic.nack have the same arguments.
func Nack(m *Message) Fate {
	if m.Method == "basic.ack" {
		binary.BigEndian.PutUint16(m.Raw[frameHead+2:], 120)
	}
	return Passed
}

// Misroute sends a publish to a queue that does not exist, so that the broker returns it if it is mandatory.
func Misroute(m *Message) Fate {
	if m.Method != "basic.publish" {
		return Passed
	}
	end := frameHead + int(binary.BigEndian.Uint32(m.Raw[3:]))
	payload, rest := m.Raw[frameHead:end], m.Raw[end:]
	exchange, behind := shortstr(payload[4+2:])
	key, bits := shortstr(behind)
	key = "nowhere." + key
	changed := append([]byte{}, payload[:4+2]...)
	changed = append(append(changed, byte(len(exchange))), exchange...)
	changed = append(append(changed, byte(len(key))), key...)
	changed = append(changed, bits...)
	raw := append([]byte{}, m.Raw[:3]...)
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(changed)))
	m.Raw, m.Key = append(append(raw, changed...), rest...), key
	return Passed
}

// Block tells the client, before the broker's message, that publishing is blocked; Unblock that it is not any more.
func Block(m *Message) Fate { return announce(m, append([]byte{0, 10, 0, 60, 6}, "alarm!"...)) }

// Unblock ends Block.
func Unblock(m *Message) Fate { return announce(m, []byte{0, 10, 0, 61}) }

func announce(m *Message, payload []byte) Fate {
	frame := binary.BigEndian.AppendUint32([]byte{frameMethod, 0, 0}, uint32(len(payload)))
	frame = append(append(frame, payload...), frameEnd)
	m.Raw = append(frame, m.Raw...)
	return Passed
}
