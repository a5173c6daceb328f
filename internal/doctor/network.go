package doctor

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise"
)

// bind is one address that a service of ours wants.
type bind struct {
	owner    string // gateway-default, dashboard
	host     string
	port     int
	variable string // the setting of the port
	wanted   bool
}

func (b bind) address() string { return net.JoinHostPort(b.host, strconv.Itoa(b.port)) }

// clashes says whether both cannot be had.
func (b bind) clashes(other bind) bool {
	if b.port == 0 || b.port != other.port {
		return false
	}
	return b.host == other.host || everywhere(b.host) || everywhere(other.host)
}

func everywhere(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// network looks at the ports that are wanted, and who can reach them.
func (e *examiner) network(ctx context.Context) []Finding {
	everyone := e.binds()
	var findings []Finding
	for _, p := range e.Profiles {
		own := e.gateway(p)
		findings = append(findings, e.port(ctx, own, everyone).of(p))
		if own.port == 0 { // there is nothing yet to reach
			continue
		}
		host := "docker run -e API_SERVER_HOST=0.0.0.0"
		if !e.Owns(p) { // the container's environment speaks of another
			host = command(p.Name, "config set api_server.host 0.0.0.0") + ", and docker run"
		}
		findings = append(findings, e.reach(own, host).of(p))
	}
	if d := e.dashboard(); d.wanted {
		findings = append(findings, e.port(ctx, d, everyone), e.reach(d, "docker run -e HERMES_DASHBOARD_HOST=0.0.0.0"))
	}
	return findings
}

// binds are all the addresses that profiles and the dashboard want.
func (e *examiner) binds() []bind {
	var list []bind
	for _, p := range e.Everyone {
		list = append(list, e.gateway(p))
	}
	if d := e.dashboard(); d.wanted {
		list = append(list, d)
	}
	return list
}

func (e *examiner) gateway(p profile.Profile) bind {
	c := e.configs[p.Name]
	api := c.API()
	if c.Source("api_server.port").Kind == config.FromDefault && !e.Owns(p) {
		api.Port = 0 // its first start gives it one
	}
	i, known, err := intent.Read(p.Home)
	return bind{supervise.GatewayName(p.Name), api.Host, api.Port, "API_SERVER_PORT", err == nil && known && i.Want == supervise.WantUp}
}

// dashboard is wanted where the default profile's settings say so.
func (e *examiner) dashboard() bind {
	c := e.configs[profile.Default]
	if c == nil {
		return bind{}
	}
	d := c.Dashboard()
	return bind{supervise.DashboardName, d.Host, d.Port, "HERMES_DASHBOARD_PORT", d.Enabled}
}

// port says whether the address of own is its own or free. It connects and
// never listens: a gateway that is starting must not find the port taken.
func (e *examiner) port(ctx context.Context, own bind, everyone []bind) Finding {
	const check = "network.port"
	for _, other := range everyone {
		if other.owner == own.owner || !own.clashes(other) {
			continue
		}
		fix := fmt.Sprintf("give one of them another %s", own.variable)
		if own.wanted && other.wanted {
			return problem(check, fix, "%s and %s both want port %d", own.owner, other.owner, own.port)
		}
		return warning(check, fix, "%s and %s both have port %d in their settings; only one of them can run", own.owner, other.owner, own.port)
	}
	if own.port == 0 {
		return good(check, "%s takes any free port%s", own.owner, e.present(own))
	}
	if e.serves(own) {
		return good(check, "%s serves on %s", own.owner, own.address())
	}
	if e.Probes.Listens(ctx, dialable(own)) {
		return problem(check, "stop what listens there, or set "+own.variable+" to another port",
			"%s wants %s and another process listens there", own.owner, own.address())
	}
	return good(check, "%s is free for %s", own.address(), own.owner)
}

// serves says whether the service of own runs, and so holds its port.
func (e *examiner) serves(own bind) bool {
	for _, s := range e.Report.Services {
		if s.Name == own.owner && s.Kind != supervise.KindGateway {
			return s.State == supervise.Ready
		}
	}
	address := e.address(own)
	_, port, err := net.SplitHostPort(address)
	return err == nil && port == strconv.Itoa(own.port)
}

// address is where the gateway of own really listens; "" if it does not.
func (e *examiner) address(own bind) string {
	name, _ := supervise.ProfileOf(own.owner)
	return e.Gateways[name].Address
}

func (e *examiner) present(own bind) string {
	if address := e.address(own); address != "" {
		return ", now " + address
	}
	return ""
}

// dialable is own's address for a client on this machine.
func dialable(own bind) string {
	if everywhere(own.host) {
		own.host = "127.0.0.1"
	}
	return own.address()
}

// reachable is the check of who can connect.
const reachable = "network.reach"

// reach says who can connect. A port that is published reaches only what
// listens beyond the container's own loopback; opened is how that is had.
func (e *examiner) reach(own bind, opened string) Finding {
	switch {
	case !access.LoopbackBind(own.host):
		return good(reachable, "%s listens on %s: published ports reach it", own.owner, own.host)
	case e.inContainer():
		port := strconv.Itoa(own.port)
		return warning(reachable, "to publish it: "+opened+" -p 127.0.0.1:"+port+":"+port,
			"%s listens on %s, the container's own loopback: published ports do not reach it", own.owner, own.host)
	}
	return good(reachable, "%s is for this machine alone (%s)", own.owner, own.host)
}
