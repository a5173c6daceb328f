package e2e

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"testing"
)

// What goes wrong with the logs of a gateway that runs never stops it.

const (
	logsOfGateways = "/opt/data/logs/gateways"
	logOfDefault   = logsOfGateways + "/default"
)

// talkative is a gateway that logs a line for each turn, with 8 MB of room of
// its own for logs: the conversations lie elsewhere.
func talkative(t *testing.T) *container {
	t.Helper()
	return served(t, spec{
		flags: []string{"--tmpfs", logsOfGateways + ":size=8m,mode=1777"},
		env:   []string{"HERMES_LOG_LEVEL=debug"},
	})
}

// turns answers a message in the conversation called session, which is in the
// log line of it.
func (c *container) turns(session string) {
	c.t.Helper()
	if reply := c.reply(chat("hello", session)); !strings.Contains(reply, "hello") {
		c.t.Errorf("it answers %q", reply)
	}
}

// inFile is how often a session's turns stand in the files of the default
// profile's log, the rotated ones too.
func (c *container) inFile(session string) int {
	c.t.Helper()
	out := c.exec("sh", "-c", "cat "+logOfDefault+"/current "+logOfDefault+"/@* "+logOfDefault+"/previous 2>/dev/null").stdout
	return strings.Count(out, " session="+session+" ")
}

// inLogs is how often they stand in docker logs.
func (c *container) inLogs(session string) int {
	return strings.Count(c.logs(), " session="+session+" ")
}

// counted waits until a count is what it should be.
func (c *container) counted(where string, count func(string) int, session string, want int) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("%s has %d turns of %s", where, want, session), func() error {
		if n := count(session); n != want {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
}

// sameProcesses fails unless gateway and logger are those of before.
func (c *container) sameProcesses(gateway, logger int) {
	c.t.Helper()
	row := c.waitState("gateway-default", "ready")
	if row.PID == nil || *row.PID != gateway || row.Restarts != 0 {
		c.t.Errorf("the gateway was %d and is %s", gateway, row)
	}
	if now := c.logger(); now != logger {
		c.t.Errorf("the logger was %d and is %d", logger, now)
	}
}

// logger is the pid of the default gateway's s6-log.
func (c *container) logger() int {
	c.t.Helper()
	pid, err := strconv.Atoi(c.mustExec("s6-svstat", "-o", "pid", "/run/service/gateway-default/log"))
	if err != nil {
		c.t.Fatal(err)
	}
	return pid
}

// The disk of the logs fills up, or their directory can no longer be written,
// while the gateway runs: it goes on answering, each line is in docker logs at
// once, and in the files after the cure.
func TestLogsThatCannotBeWrittenAnyMore(t *testing.T) {
	const turns = 40 // more lines than the rest of a page has room for
	for name, tc := range map[string]struct{ harm, cure string }{
		"full": {
			"head -c 20m /dev/zero >" + logsOfGateways + "/ballast 2>/dev/null; test $(df --output=avail " + logsOfGateways + " | tail -1) = 0",
			"rm " + logsOfGateways + "/ballast",
		},
		// Nobody can take away the write access of a file that is open; a logger
		// told to rotate needs the directory's.
		"read-only": {
			"chmod 555 " + logOfDefault + " && s6-svc -a /run/service/gateway-default/log",
			"chmod 755 " + logOfDefault,
		},
	} {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			c := talkative(t)
			gateway, logger := c.gatewayPID(), c.logger()
			c.turns("before")
			c.counted("the file", c.inFile, "before", 1)
			c.mustExec("sh", "-c", tc.harm)
			if name == "read-only" {
				c.logged("unable to rename " + path.Join(logOfDefault, "current"))
			}
			for range turns {
				c.turns("meanwhile")
			}
			c.counted("docker logs", c.inLogs, "meanwhile", turns)
			if n := c.inFile("meanwhile"); n == turns {
				t.Fatalf("the files have all %d turns: nothing was wrong with them", n)
			}
			c.sameProcesses(gateway, logger)
			c.mustExec("sh", "-c", tc.cure)
			c.turns("after")
			c.counted("the file", c.inFile, "after", 1)
			c.counted("the file", c.inFile, "meanwhile", turns)
			c.counted("docker logs", c.inLogs, "after", 1)
			c.sameProcesses(gateway, logger)
		})
	}
}

// A logger that takes nothing any more holds nobody up: what does not fit into
// the pipe and the gateway's own 256 KiB is dropped, and a line says how much.
func TestStuckLoggerStopsNobody(t *testing.T) {
	parallel(t)
	c := talkative(t)
	c.waitState("guard", "ready")
	gateway, logger := c.gatewayPID(), c.logger()
	c.kill("STOP", logger)
	// A line names its session: 4,000 of 150 bytes and more are over half a megabyte.
	const turns, clients = 4000, 8
	address := c.published(8642)
	if answered := hammer(t, address, clients, func(client, n int) (request, bool) {
		return chat("hello", fmt.Sprintf("c%d-%s", client, strings.Repeat("x", 40))), n < turns/clients
	}); answered != turns {
		t.Fatalf("%d of %d turns were answered", answered, turns)
	}
	c.sameProcesses(gateway, logger)
	c.kill("CONT", logger)
	const dropped = "warn log lines dropped: nobody took them count="
	c.logged(dropped)
	_, after, _ := strings.Cut(c.logs(), dropped)
	count, _, _ := strings.Cut(after, "\n")
	n, err := strconv.Atoi(strings.TrimSpace(count))
	written := strings.Count(c.logs(), " debug turn answered ")
	if err != nil || n <= 0 || written == 0 || written+n != turns {
		t.Errorf("of %d turns %d are in docker logs and %q are said to be dropped", turns, written, count)
	}
	c.turns("after")
	c.counted("docker logs", c.inLogs, "after", 1)
	c.counted("the file", c.inFile, "after", 1)
	c.sameProcesses(gateway, logger)
}
