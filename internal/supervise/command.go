package supervise

import "errors"

// Command is what an operator may ask of a gateway.
type Command string

// The commands.
const (
	CommandStart   Command = "start"
	CommandStop    Command = "stop"
	CommandRestart Command = "restart"
)

// Outcome is the word for success: what the gateway is then. "" says that there
// is no such command.
func (c Command) Outcome() string {
	switch c {
	case CommandStart:
		return "ready"
	case CommandStop:
		return "down"
	case CommandRestart:
		return "ready again"
	}
	return ""
}

// ErrConflict: another command is at work on the slot, or overruled this one.
var ErrConflict = errors.New("another command came between")
