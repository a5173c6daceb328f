package main

// Names of contestants, as they stand in the tables.
const (
	ours       = "hermes"
	foreground = "hermes --no-supervise"
	none       = "no init"
	tini       = "tini"
	catatonit  = "catatonit"
	runit      = "runit"
	supervisor = "supervisord"
	restarting = " + --restart unless-stopped"
)

// supervised is `docker run IMAGE gateway run`.
func (l *lab) supervised() contestant {
	return contestant{name: ours, image: l.image, cmd: []string{"gateway", "run"}}
}

func (l *lab) unsupervised() contestant {
	return contestant{name: foreground, image: l.image, cmd: []string{"gateway", "run", "--no-supervise"}}
}

// dockerRestarts is a small init with Docker's own restart policy: what people
// run today.
func (l *lab) dockerRestarts(init string) contestant {
	return contestant{
		name: init + restarting, image: l.peers,
		flags: []string{"--restart", "unless-stopped", "--user", "10000:0", "--entrypoint", init},
		cmd:   []string{"--", "hermes", "gateway", "run", "--no-supervise"},
	}
}

func (l *lab) runit() contestant {
	return contestant{name: runit, image: l.peers, flags: []string{"--user", "10000:0", "--entrypoint", "/bench/runit-init"}}
}

func (l *lab) supervisord() contestant {
	return contestant{
		name: supervisor, image: l.peers, flags: []string{"--user", "10000:0", "--entrypoint", "supervisord"},
		cmd: []string{"-c", "/bench/supervisord.conf"},
	}
}

// supervisors is everyone who keeps a gateway running.
func (l *lab) supervisors() []contestant {
	return []contestant{l.supervised(), l.dockerRestarts(tini), l.dockerRestarts(catatonit), l.runit(), l.supervisord()}
}
