package ledger

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Plan says how the ledger behaves: with what probability in a thousand each behaviour comes; the rest is [Done].
// A call's share is drawn from the seed, its id and its epoch, and so does not depend on the order of calls.
type Plan struct {
	Seed     uint64            `json:"seed"`
	PerMille map[Behaviour]int `json:"per_mille"`
	Late     time.Duration     `json:"late"` // the longest delay of a late answer or effect; default 2 s
	// Witness is how many calls in a thousand are compared with the database at once.
	Witness int `json:"witness"`
}

func (p Plan) check() error {
	sum := 0
	for b, n := range p.PerMille {
		if !slices.Contains(Behaviours(), b) {
			return fmt.Errorf("ledger: there is no behaviour %q; they are %v", b, Behaviours())
		}
		if n < 0 {
			return fmt.Errorf("ledger: behaviour %s has %d per mille; at least 0", b, n)
		}
		sum += n
	}
	if sum > 1000 {
		return fmt.Errorf("ledger: the behaviours have %d per mille together; at most 1000", sum)
	}
	return nil
}

// dice are a call's own.
func (p Plan) dice(id uuid.UUID, epoch int) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write(id[:])
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(epoch)))
	return rand.New(rand.NewPCG(p.Seed, h.Sum64()))
}

// draw chooses a behaviour.
func (p Plan) draw(dice *rand.Rand) Behaviour {
	at := dice.IntN(1000)
	for _, b := range Behaviours() { // in one order: a map has none
		if at < p.PerMille[b] {
			return b
		}
		at -= p.PerMille[b]
	}
	return Done
}

// delay of a late answer.
func (p Plan) delay(dice *rand.Rand) time.Duration {
	most := p.Late
	if most <= 0 {
		most = 2 * time.Second
	}
	return time.Duration(dice.Int64N(int64(most)))
}
