-- What helps to see the wood for the trees: like errors together.

-- The fingerprint of an error text: what is left when quoted strings, ids, addresses and numbers are folded into #. Texts that
-- differ only in these have one fingerprint; a fingerprint is its own.
CREATE OR REPLACE FUNCTION writ.fingerprint(message text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT btrim(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
        left(message, 300),
        -- Quoted: "…", `…`, «…», and '…' where it is no apostrophe.
        '"[^"]*"|`[^`]*`|«[^»]*»|“[^”]*”|(?<!\w)''[^'']*''(?!\w)', '#', 'g'),
        '[\w.+-]+@[\w-]+(\.[\w-]+)+', '#', 'g'),                             -- mail addresses
        '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '#', 'gi'), -- uuids
        '\[[0-9a-f:.]*:[0-9a-f:.]*(%\w+)?\](:[0-9]+)?|\m[0-9a-f]{1,4}(:[0-9a-f]{1,4}){3,7}\M|(\m[0-9a-f]{1,4}(:[0-9a-f]{1,4})*)?::([0-9a-f]{1,4}(:[0-9a-f]{1,4})*)?(?!\w)', '#', 'gi'), -- IPv6
        '\m0x[0-9a-f]+\M', '#', 'gi'),                                              -- addresses in memory
        '\m(?=[a-z_-]*[0-9])[0-9a-z_-]{16,}\M', '#', 'gi'),                          -- tokens
        '\m(?=[a-z]*[0-9])[0-9a-f]{8,}\M', '#', 'gi'),                               -- hex ids and digests
        '#?[0-9]+([.,:-][0-9]+)*', '#', 'g'),                                        -- numbers, times, IPv4 with its port
        '\s+', ' ', 'g'))
$$;

-- The least UUIDv7 of a moment: id >= writ.uuid_at(t) reads along the primary key what was requested since t. Ids are made by
-- the creators' clocks, and may be chosen by them: leave some minutes, and compare requested_at besides.
CREATE OR REPLACE FUNCTION writ.uuid_at(t timestamptz) RETURNS uuid
LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM t) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid
$$;

-- What needs a decision, like with like: ambiguous attempts and errors by kind and fingerprint.
DROP VIEW IF EXISTS writ.error_groups;
CREATE VIEW writ.error_groups AS
SELECT kind, CASE WHEN failed_at IS NULL THEN 'ambiguous' ELSE 'error' END AS status, flag_reason, writ.fingerprint(error) AS fingerprint,
    count(*), min(coalesce(failed_at, flagged_at)) AS first, max(coalesce(failed_at, flagged_at)) AS last, max(id::text)::uuid AS example
FROM writ.intents
WHERE failed_at IS NOT NULL OR flagged_at IS NOT NULL
GROUP BY 1, 2, 3, 4;
