package config

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/hermesgw/hermes/internal/exitcode"
)

const (
	apiPortName  = "API_SERVER_PORT"
	apiPortKey   = "api_server.port"
	firstAPIPort = 8643 // the one behind the default profile's
)

// EnsureAPIPort returns the port that the files in home give the profile's API.
// Where they give none it assigns the first one from 8643 up that is not taken,
// and keeps it as a line of home/.env, as EnsureAPIKey does. The caller makes
// sure that nobody else assigns a port meanwhile.
func EnsureAPIPort(home string, taken func(port int) bool) (port int, err error) {
	c, err := Load(Options{Home: home, Part: true})
	if err != nil {
		return 0, err
	}
	if c.Source(apiPortKey).Kind != FromDefault {
		return c.API().Port, nil
	}
	for port = firstAPIPort; taken(port); port++ {
		if port == maxPort {
			return 0, exitcode.With(exitcode.Config, errors.New("cannot assign an API port: all from 8643 up are taken; set "+apiPortName))
		}
	}
	if err := appendLine(GeneratedPath(home), apiPortName+"="+strconv.Itoa(port)); err != nil {
		return 0, fmt.Errorf("cannot keep the new API port: %w", err)
	}
	return port, nil
}

// ClaimedPorts returns the ports that the files in home name, of its API and of
// the dashboard. What cannot be read claims nothing: another profile's broken
// file must not keep this one from starting.
func ClaimedPorts(home string) []int {
	dotenv, _, _ := readHome(Options{Home: home})
	yaml := readYAML(Options{Home: home}, isInherited(home))
	return claimed(func(s Setting) []string { return []string{dotenv[s.Env].text, yaml.entries[s.Key].text} })
}

// PortsOf is ClaimedPorts of an environment.
func PortsOf(lookup func(name string) (string, bool)) []int {
	return claimed(func(s Setting) []string {
		text, _ := lookup(s.Env)
		return []string{text}
	})
}

// claimed collects the ports among the texts that a source has for a setting.
func claimed(texts func(Setting) []string) []int {
	var ports []int
	for _, s := range Settings() {
		if s.Kind != Port {
			continue
		}
		for _, text := range texts(s) {
			if port, err := strconv.Atoi(text); err == nil && port > 0 {
				ports = append(ports, port)
			}
		}
	}
	return ports
}

// DefaultPorts are the ports that are used where nothing is set.
func DefaultPorts() []int {
	return claimed(func(s Setting) []string { return []string{s.Default} })
}
