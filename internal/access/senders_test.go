package access_test

import (
	"slices"
	"testing"

	"github.com/hermesgw/hermes/internal/access"
)

func TestWhoMayTalk(t *testing.T) {
	for name, c := range map[string]struct {
		senders  access.Senders
		platform string
		id       string
		paired   bool
		want     access.Tier
	}{
		"nobody is let in without configuration": {platform: "irc", id: "account:alice", want: access.Stranger},
		"listed for all platforms":               {senders: access.Senders{Allow: []string{"irc:account:alice"}}, platform: "irc", id: "account:alice", want: access.User},
		"the same id on another platform":        {senders: access.Senders{Allow: []string{"irc:account:alice"}}, platform: "matrix", id: "account:alice", want: access.Stranger},
		"listed on the platform":                 {senders: access.Senders{OnPlatform: map[string][]string{"irc": {"account:bob"}}}, platform: "irc", id: "account:bob", want: access.User},
		"listed on another":                      {senders: access.Senders{OnPlatform: map[string][]string{"matrix": {"account:bob"}}}, platform: "irc", id: "account:bob", want: access.Stranger},
		"an admin":                               {senders: access.Senders{Admins: []string{"irc:account:root"}}, platform: "irc", id: "account:root", want: access.Admin},
		"paired":                                 {platform: "irc", id: "x", paired: true, want: access.User},
		"everybody":                              {senders: access.Senders{Allow: []string{"*"}}, platform: "irc", id: "x", want: access.User},
		"everybody on one platform":              {senders: access.Senders{Allow: []string{"irc:*"}}, platform: "irc", id: "x", want: access.User},
		"everybody is not an admin":              {senders: access.Senders{Admins: []string{"*"}}, platform: "irc", id: "x", want: access.Stranger},
		"no id is nobody":                        {senders: access.Senders{Allow: []string{"*"}}, platform: "irc", want: access.Stranger},
		"a name is not an id":                    {senders: access.Senders{Allow: []string{"irc:alice"}}, platform: "irc", id: "account:alice", want: access.Stranger},
		"case counts":                            {senders: access.Senders{Allow: []string{"irc:account:Alice"}}, platform: "irc", id: "account:alice", want: access.Stranger},
	} {
		if got := c.senders.TierOf(c.platform, c.id, c.paired); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	open := access.Senders{Allow: []string{"*", "irc:*"}, OnPlatform: map[string][]string{"irc": {"*"}, "x": {"a"}}}.Open()
	if !slices.Equal(open, []string{"access.allow", "irc.allow"}) {
		t.Errorf("%q", open)
	}
}
