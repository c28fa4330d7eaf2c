-- The blog's own tables. Writ's live beside them, in the schema writ of the same database: that is what lets a comment
-- and the intent to mail it be committed together.
CREATE TABLE IF NOT EXISTS posts (
    id           bigint PRIMARY KEY,
    title        text NOT NULL,
    author_email text NOT NULL
);

CREATE TABLE IF NOT EXISTS comments (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    post_id     bigint NOT NULL REFERENCES posts,
    author      text NOT NULL,
    body        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    notified_at timestamptz -- the receipt: when it was known that the mail server had taken the mail
);

-- Some posts to comment on. Post 21's author has an address that no longer exists.
INSERT INTO posts (id, title, author_email)
SELECT n, 'Notes from week ' || n, 'author' || n || '@blog.example' FROM generate_series(1, 20) n
UNION ALL VALUES (21, 'Where I went', 'gone@blog.example'), (22, 'On «exactly once»', 'kay@blog.example')
ON CONFLICT DO NOTHING;
