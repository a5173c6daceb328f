package app

import (
	"os"
	"slices"
	"strings"

	"github.com/hermesgw/hermes/internal/boot"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise/slot"
)

// GatewayEnvironment is the names that the gateway of p sees, with their
// sources, and those it does not. It holds no values.
type GatewayEnvironment struct {
	Schema    int               `json:"schema"`
	Profile   string            `json:"profile"`
	Variables []config.Seen     `json:"variables"`
	Withheld  []config.Withheld `json:"withheld"`
}

// Environment says what the gateway of p sees at its next start: in a
// container its slot's part of the container's environment, elsewhere that of
// this process; its own .env and config.yaml; and the defaults.
func (s *Supervision) Environment(p profile.Profile) (GatewayEnvironment, error) {
	e := GatewayEnvironment{Schema: 1, Profile: p.Name, Withheld: []config.Withheld{}}
	environ, own := os.Environ(), []string(nil)
	if s.Live() {
		var err error
		if environ, err = boot.LoadEnvironment(s.Found.Dir.Environment()); err != nil {
			return e, err
		}
		spec, err := s.GatewaySpec(p, nil, s.OwnsEnvironment(p))
		if err != nil {
			return e, err
		}
		environ, own, e.Withheld = slot.Environment(environ, spec)
	}
	seen, unread, err := config.Look(p.Home, environ, own)
	if err != nil {
		return e, err
	}
	e.Variables, e.Withheld = seen, slices.Concat([]config.Withheld{}, e.Withheld, unread)
	slices.SortStableFunc(e.Withheld, func(a, b config.Withheld) int { return strings.Compare(a.Name, b.Name) })
	return e, nil
}
