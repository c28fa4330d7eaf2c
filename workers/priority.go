package workers

import "github.com/writhq/writ/intent"

// turns say who goes first, hint by hint, where hints of several priorities wait: then the others, the higher before the lower.
// So lower ones have a share that is theirs, and the rest is for the highest that waits.
var turns = [10]intent.Priority{
	intent.High, intent.High, intent.High, intent.Normal, intent.High, intent.High, intent.Normal, intent.High, intent.High, intent.Low,
}

// byRank are the priorities, the highest first.
var byRank = [3]intent.Priority{intent.High, intent.Normal, intent.Low}

// ranked reports whether there are kinds of more than one priority. Where there are none, nothing is sorted.
func (m *Mux) ranked() bool {
	seen := map[intent.Priority]bool{}
	for _, k := range m.kinds {
		seen[k.Priority] = true
	}
	return len(seen) > 1
}

// priority of a hint; what is not known here is put back in any case.
func (c *claimer) priority(h hint) intent.Priority {
	if v := c.valves[h.Kind]; v != nil {
		return v.kind.Priority
	}
	return intent.Normal
}

// inTurn puts the next n hints to the front, by turns; all others stay behind them in the order of their coming. turn
// is where the turns have come to, and is returned.
func inTurn(waiting []hint, n, turn int, priority func(hint) intent.Priority) ([]hint, int) {
	var of [3][]hint
	for _, h := range waiting {
		p := priority(h)
		of[p] = append(of[p], h)
	}
	n = min(n, len(waiting))
	for _, all := range of {
		if len(all) == len(waiting) {
			return waiting, turn
		}
	}
	out := make([]hint, 0, len(waiting))
	for len(out) < n {
		next := turns[turn]
		turn = (turn + 1) % len(turns)
		if len(of[next]) == 0 {
			for _, next = range byRank {
				if len(of[next]) > 0 {
					break
				}
			}
		}
		out = append(out, of[next][0])
		of[next] = of[next][1:]
	}
	for _, p := range byRank {
		out = append(out, of[p]...)
	}
	return out, turn
}

// reserves keep a share of the slots for higher priorities, by the priority that is kept out of it: kinds of lower ones share
// the rest, so that long jobs of theirs cannot take every slot.
func (p *Pool) reserves() map[intent.Priority][]gate {
	has := map[intent.Priority]bool{}
	for _, k := range p.mux.kinds {
		has[k.Priority] = true
	}
	share := max(1, p.cfg.Slots/10)
	out := map[intent.Priority][]gate{}
	left := p.cfg.Slots
	var within []gate
	for i, rank := range byRank {
		if i > 0 && has[byRank[i-1]] && left > share {
			left -= share
			within = append(within, &places{total: left, stir: p.stir})
		}
		out[rank] = within
	}
	return out
}
