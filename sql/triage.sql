-- What helps to see the wood for the trees: like errors together.

-- The fingerprint of an error text: what is left when quoted strings, ids, addresses and numbers are folded into #. Texts that
-- differ only in these have one fingerprint; a fingerprint is its own.
CREATE OR REPLACE FUNCTION writ.fingerprint(message text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT btrim(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
        left(message, 300),
        -- Quoted: "…", `…`, «…», and '…' where it is no apostrophe.
        '"[^"]*"|`[^`]*`|«[^»]*»|“[^”]*”|(?<!\w)''[^'']*''(?!\w)', '#', 'g'),
        '[\w.+-]+@[\w-]+(\.[\w-]+)+', '#', 'g'),                                                     -- mail addresses
        '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '#', 'gi'),                  -- uuids
        '\[[0-9a-f:.]*:[0-9a-f:.]*(%\w+)?\]|\m[0-9a-f]{1,4}(:[0-9a-f]{0,4}){2,7}|(?<![\w:])::[0-9a-f]{1,4}(:[0-9a-f]{1,4})*', '#', 'gi'), -- IPv6
        '\m0x[0-9a-f]+\M', '#', 'gi'),                                                               -- addresses in memory
        '\m(?=[a-z]*[0-9])[0-9a-f]{8,}\M', '#', 'gi'),                                                -- hex ids and digests
        '\m(?=[a-z_-]*[0-9])[0-9a-z_-]{16,}\M', '#', 'gi'),                                           -- tokens
        '#?[0-9]+([.,:][0-9]+)*(#)?', '#', 'g'),                                                     -- numbers, times, IPv4 with its port
        '\s+', ' ', 'g'))
$$;
