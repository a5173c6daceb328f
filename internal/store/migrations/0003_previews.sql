-- +goose Up

-- The platform's id of the message that shows the answer while it is given; empty:
-- none does.
ALTER TABLE inbox ADD COLUMN preview TEXT NOT NULL DEFAULT '';
-- The platform's id of the message that the part takes the place of; empty: it is
-- one of its own.
ALTER TABLE outbox ADD COLUMN edits TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE outbox DROP COLUMN edits;
ALTER TABLE inbox DROP COLUMN preview;
