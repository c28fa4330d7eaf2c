-- What application pheidi keeps beside Writ: the mails that it has sent.
CREATE TABLE IF NOT EXISTS mails (
    key     text        PRIMARY KEY,
    address text        NOT NULL,
    text    text        NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT now()
);
