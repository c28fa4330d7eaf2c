-- What a handler at work says of its attempt before that has an outcome. The guard is an outcome's: id, epoch, worker, sending. Each
-- answers whether it was taken, and where the row stands otherwise; each may be sent again after a lost answer.

-- name: SafePoint
-- The $4th safe point of this attempt: $5 is what is done by now. As with an outcome, a flag does not void it. A statement that comes out
-- of a lost connection when a later point is there already is refused by its number: progress never goes back.
WITH u AS (
    UPDATE writ.intents i SET progress = jsonb_build_object('value', $5::jsonb, 'step', $4::int, 'epoch', i.epoch, 'at', now())
    WHERE i.id = $1 AND (SELECT writ.check_adopted()) AND i.epoch = $2 AND i.worker_id = $3 AND i.state = 'sending'
      AND coalesce(i.progress -> 'epoch' <> to_jsonb(i.epoch) OR i.progress -> 'step' <= to_jsonb($4::int), true)
    RETURNING i.id
)
SELECT EXISTS (SELECT FROM u), i.state, i.epoch, coalesce(i.flag_reason, ''), NULL::jsonb FROM writ.intents i WHERE i.id = $1;

-- name: Extend
-- The deadline is moved on, never back. Not of a flagged row: somebody may be deciding by the deadline that it shows.
WITH u AS (
    UPDATE writ.intents i SET deadline_at = greatest(i.deadline_at, now() + $4::interval)
    WHERE i.id = $1 AND (SELECT writ.check_adopted()) AND i.epoch = $2 AND i.worker_id = $3 AND i.state = 'sending' AND i.flagged_at IS NULL
    RETURNING i.id
)
SELECT EXISTS (SELECT FROM u), i.state, i.epoch, coalesce(i.flag_reason, ''), NULL::jsonb FROM writ.intents i WHERE i.id = $1;

-- name: Progress
-- What the last safe point of the intent left, in whichever attempt.
SELECT (SELECT writ.check_adopted()) AND i.epoch = $2 AND i.worker_id = $3 AND i.state = 'sending', i.state, i.epoch, coalesce(i.flag_reason, ''), i.progress -> 'value'
FROM writ.intents i WHERE i.id = $1;
