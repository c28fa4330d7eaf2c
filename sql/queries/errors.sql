-- Errors and ambiguous attempts by kind and fingerprint, the most frequent first: like meets like, for numbers, ids, addresses and
-- quoted strings are folded. writ list --error TEXT and writ bulk plan --error TEXT take any text of a group, or its fingerprint.
SELECT kind, status, flag_reason, fingerprint AS error, count, first, last, example
FROM writ.error_groups
ORDER BY count DESC, last DESC;
