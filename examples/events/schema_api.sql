-- What application api keeps beside Writ.
CREATE TABLE IF NOT EXISTS users (
    id            bigint      PRIMARY KEY,
    email         text        NOT NULL,
    authorized_at timestamptz
);
