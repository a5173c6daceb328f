-- +goose Up

-- Every message that was accepted, until retention removes it. The order of id
-- is the order of acceptance.
CREATE TABLE inbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice
    message     TEXT    NOT NULL UNIQUE,           -- the public id: msg_…, run_…
    account     TEXT    NOT NULL,                  -- of ours on a platform: http, irc/nick@host:port
    external    TEXT    NOT NULL,                  -- the platform's id of it, or the client's key
    digest      TEXT    NOT NULL DEFAULT '',       -- of the request, to tell a retry from another under the same key
    chat        TEXT    NOT NULL,                  -- platform/chat/thread; turns of one run one at a time
    session     TEXT    NOT NULL,                  -- the conversation that it belongs to
    sender      TEXT    NOT NULL DEFAULT '',
    ask         TEXT    NOT NULL,                  -- JSON, see turn.Ask
    state       TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'answered', 'failed')),
    reason      TEXT    NOT NULL DEFAULT '',       -- of failed: one word
    error       TEXT    NOT NULL DEFAULT '',       -- of failed: a sentence
    attempts    INTEGER NOT NULL DEFAULT 0,        -- how often its turn began
    released    INTEGER NOT NULL DEFAULT 0,        -- of those, how often it was left to the next process in good order
    restarts    INTEGER NOT NULL DEFAULT 0,        -- how often the answer of the last attempt began again
    behind      INTEGER NOT NULL DEFAULT 0,        -- messages of the chat before it when it was accepted
    joined      TEXT    NOT NULL DEFAULT '',       -- the message whose turn answered it as well
    replay_of   TEXT    NOT NULL DEFAULT '',       -- the failed message that it repeats
    settled     TEXT    NOT NULL DEFAULT '' CHECK (settled IN ('', 'replayed', 'dropped')), -- a dead letter somebody saw to
    model       TEXT    NOT NULL DEFAULT '',       -- which answered
    finish      TEXT    NOT NULL DEFAULT '',
    tokens_in   INTEGER NOT NULL DEFAULT 0,
    tokens_out  INTEGER NOT NULL DEFAULT 0,
    reply_seq   INTEGER NOT NULL DEFAULT 0,        -- of the answer in messages
    received_at INTEGER NOT NULL,                  -- Unix microseconds, UTC, here and below
    started_at  INTEGER NOT NULL DEFAULT 0,        -- of the last attempt
    finished_at INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, external)
) STRICT;
CREATE INDEX inbox_open ON inbox (id) WHERE state IN ('queued', 'running');
CREATE INDEX inbox_session ON inbox (session, id);
CREATE INDEX inbox_chat ON inbox (chat, id);
CREATE INDEX inbox_dead ON inbox (id) WHERE state = 'failed' AND settled = '' AND reason <> 'cancelled';

-- What a turn asked of a model, for the trace. The text of an answer is in
-- messages, that of a summary in summaries.
CREATE TABLE steps (
    inbox_id   INTEGER NOT NULL REFERENCES inbox (id) ON DELETE CASCADE,
    seq        INTEGER NOT NULL, -- from 1
    attempt    INTEGER NOT NULL, -- of the turn
    kind       TEXT    NOT NULL, -- model, summary
    model      TEXT    NOT NULL,
    error      TEXT    NOT NULL DEFAULT '',
    tokens_in  INTEGER NOT NULL DEFAULT 0,
    tokens_out INTEGER NOT NULL DEFAULT 0,
    tries      TEXT    NOT NULL, -- JSON list
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    PRIMARY KEY (inbox_id, seq)
) STRICT, WITHOUT ROWID;

-- Parts of answers on their way to a platform, in the order to be sent.
CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery    TEXT    NOT NULL UNIQUE,
    message     TEXT    NOT NULL,            -- the inbox message it answers; empty: none
    account     TEXT    NOT NULL,
    chat        TEXT    NOT NULL,            -- the platform's chat, not the key
    thread      TEXT    NOT NULL DEFAULT '',
    reply_to    TEXT    NOT NULL DEFAULT '',
    part        INTEGER NOT NULL,            -- from 1
    parts       INTEGER NOT NULL,
    text        TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('pending', 'sending', 'sent', 'dead')),
    unsure      INTEGER NOT NULL DEFAULT 0,  -- a try may have reached the platform
    settled     TEXT    NOT NULL DEFAULT '' CHECK (settled IN ('', 'replayed', 'dropped')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    tries       TEXT    NOT NULL DEFAULT '[]', -- JSON list
    receipt     TEXT    NOT NULL DEFAULT '', -- the platform's id of it
    error       TEXT    NOT NULL DEFAULT '',
    created_at  INTEGER NOT NULL,
    not_before  INTEGER NOT NULL DEFAULT 0,
    finished_at INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX outbox_open ON outbox (id) WHERE state IN ('pending', 'sending');
CREATE INDEX outbox_dead ON outbox (id) WHERE state = 'dead' AND settled = '';
CREATE INDEX outbox_message ON outbox (message);

-- How far the stream of a platform has been read, committed with the message.
CREATE TABLE cursors (
    account TEXT PRIMARY KEY,
    cursor  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What a chat is set to.
CREATE TABLE chats (
    chat       TEXT    PRIMARY KEY,
    session    TEXT    NOT NULL,
    busy       TEXT    NOT NULL DEFAULT '', -- queue, interrupt; empty: the setting
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What older messages of a session came to.
CREATE TABLE summaries (
    session_id TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    upto       INTEGER NOT NULL, -- seq of the last message that it covers
    text       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (session_id, upto)
) STRICT, WITHOUT ROWID;

-- Exact numbers since the database was made; retention takes nothing off.
-- received = answered + failed + the open rows of inbox.
CREATE TABLE tally (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    received   INTEGER NOT NULL DEFAULT 0,
    answered   INTEGER NOT NULL DEFAULT 0,
    failed     INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0 -- deliveries that were labelled as perhaps repeated
) STRICT;
INSERT INTO tally (id) VALUES (1);

-- Who asked to be let in, and who was.
CREATE TABLE pairings (
    code       TEXT    PRIMARY KEY,
    platform   TEXT    NOT NULL,
    sender     TEXT    NOT NULL,
    name       TEXT    NOT NULL DEFAULT '',
    reply      TEXT    NOT NULL,            -- JSON: where the sender is told
    created_at INTEGER NOT NULL,
    UNIQUE (platform, sender)
) STRICT, WITHOUT ROWID;
CREATE TABLE paired (
    platform   TEXT    NOT NULL,
    sender     TEXT    NOT NULL,
    name       TEXT    NOT NULL DEFAULT '',
    by         TEXT    NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    PRIMARY KEY (platform, sender)
) STRICT, WITHOUT ROWID;

-- Retention takes what was not used for longest.
CREATE INDEX sessions_updated ON sessions (updated_at);

-- Taken back by /retry: not part of the conversation any more.
ALTER TABLE messages ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0;

-- +goose Down
DROP INDEX sessions_updated;
ALTER TABLE messages DROP COLUMN hidden;
DROP TABLE paired;
DROP TABLE pairings;
DROP TABLE tally;
DROP TABLE summaries;
DROP TABLE chats;
DROP TABLE cursors;
DROP TABLE outbox;
DROP TABLE steps;
DROP TABLE inbox;
