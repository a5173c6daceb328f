package access

import (
	"slices"
	"strings"
)

// Tier is how much somebody on a chat platform may do.
type Tier int

// The tiers, each with all that is before it.
const (
	// Stranger may not talk to the gateway.
	Stranger Tier = iota
	// User may talk and see to their own conversation.
	User
	// Admin may also see what concerns everybody.
	Admin
)

// String returns the word for people.
func (t Tier) String() string {
	switch t {
	case User:
		return "user"
	case Admin:
		return "admin"
	default:
		return "stranger"
	}
}

// Everybody is the entry of a list that lets everybody in.
const Everybody = "*"

// Senders says who may talk on chat platforms. It is the one rule for every
// path that a message can take; the zero value lets nobody in. Entries are
// stable ids as a platform vouches for them, never names that anybody may take.
type Senders struct {
	// Allow and Admins hold PLATFORM:ID for every platform of the profile, or "*".
	Allow, Admins []string
	// OnPlatform holds IDs, or "*", by platform.
	OnPlatform map[string][]string
}

// TierOf returns what the sender id of platform may do; paired says whether an
// operator approved it by a pairing code.
func (s Senders) TierOf(platform, id string, paired bool) Tier {
	if id == "" {
		return Stranger
	}
	full := platform + ":" + id
	switch {
	case slices.Contains(s.Admins, full):
		return Admin
	case paired, slices.Contains(s.Allow, full), slices.Contains(s.Allow, Everybody),
		slices.Contains(s.Allow, platform+":"+Everybody),
		slices.Contains(s.OnPlatform[platform], id), slices.Contains(s.OnPlatform[platform], Everybody):
		return User
	default:
		return Stranger
	}
}

// Open lists the places where everybody is let in, for a warning.
func (s Senders) Open() []string {
	var open []string
	for _, entry := range s.Allow {
		if entry == Everybody || strings.HasSuffix(entry, ":"+Everybody) {
			open = append(open, "access.allow")
		}
	}
	for platform, list := range s.OnPlatform {
		if slices.Contains(list, Everybody) {
			open = append(open, platform+".allow")
		}
	}
	slices.Sort(open)
	return slices.Compact(open)
}
