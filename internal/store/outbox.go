package store

import (
	"github.com/hermesgw/hermes/internal/outbox"
)

func insertPart(tx *writes, p outbox.Part) error {
	_, err := tx.exec(`INSERT INTO outbox (delivery, message, account, chat, thread, reply_to, part, parts, text, state, created_at, not_before)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?)`,
		p.Delivery, p.Message, p.Account, p.Chat, p.Thread, p.ReplyTo, p.Part, p.Parts, p.Text, micros(p.Created), micros(p.NotBefore))
	return err
}
