package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/testenv"
)

const (
	// patience is the deadline of everything that should take a second: the
	// machine may be busy, and a deadline that is met costs nothing.
	patience = 45 * time.Second
	// pollEvery bounds how much later than the event a test goes on.
	pollEvery = 100 * time.Millisecond
)

// label marks what this run makes; who names the run can sweep up after it.
func label() string {
	if run := os.Getenv("HERMES_TEST_RUN"); run != "" {
		return "hermes.e2e=" + run
	}
	return "hermes.e2e=1"
}

// image is what is tested.
func image() string {
	if name := os.Getenv("HERMES_TEST_IMAGE"); name != "" {
		return name
	}
	return "hermes:dev"
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	code           int
}

// both is everything that was printed.
func (r result) both() string { return r.stdout + r.stderr }

// errorOf is a result as an error to poll on.
func errorOf(r result) error { return fmt.Errorf("it exits %d: %s", r.code, r.both()) }

// docker runs the docker command and returns how it ended, whatever that was.
func docker(t testing.TB, args ...string) result {
	t.Helper()
	cmd := exec.Command("docker", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("docker %q: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// mustDocker runs a docker command that has to succeed and returns its stdout.
func mustDocker(t testing.TB, args ...string) string {
	t.Helper()
	r := docker(t, args...)
	if r.code != 0 {
		t.Fatalf("docker %q: exit code %d\n%s", args, r.code, r.both())
	}
	return strings.TrimSpace(r.stdout)
}

// uniqueName is a name that no other run uses.
func uniqueName() string { return "hermes-e2e-" + strings.ToLower(rand.Text()[:10]) }

// parallel marks t as one that may run beside others, after it said what it
// needs. go test runs as many as there are cores.
func parallel(t *testing.T) {
	t.Helper()
	testenv.Need(t, "docker")
	if r := docker(t, "image", "inspect", image()); r.code != 0 {
		t.Fatalf("there is no image %s; build it with: make image", image())
	}
	t.Parallel()
}

// spec says how a container is started. The zero value is `docker run -d IMAGE`.
type spec struct {
	flags []string // of docker run
	env   []string // NAME=VALUE
	cmd   []string // the container's command
}

// container is a running (or ended) container of one test.
type container struct {
	t    testing.TB
	name string
}

// start runs a container in the background. It is removed at the end of the
// test; when the test failed its logs are printed first.
func start(t testing.TB, s spec) *container {
	t.Helper()
	c := reserve(t)
	mustDocker(t, c.runArgs([]string{"-d"}, s)...)
	return c
}

// runToEnd runs a container in the foreground and returns how it ended.
func runToEnd(t testing.TB, s spec) result {
	t.Helper()
	return docker(t, reserve(t).runArgs(nil, s)...)
}

// reserve names a container and sees to its removal.
func reserve(t testing.TB) *container {
	c := &container{t, uniqueName()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("docker logs of %s:\n%s", c.name, c.logs())
		}
		docker(t, "rm", "-fv", c.name)
	})
	return c
}

func (c *container) runArgs(mode []string, s spec) []string {
	args := append([]string{"run", "--name", c.name, "--label", label()}, mode...)
	for _, e := range s.env {
		args = append(args, "-e", e)
	}
	args = append(args, s.flags...)
	return append(append(args, image()), s.cmd...)
}

// gateway starts the product's main line: `gateway run`, until it is ready.
func gateway(t testing.TB, s spec) *container {
	t.Helper()
	if s.cmd == nil {
		s.cmd = []string{"gateway", "run"}
	}
	c := start(t, s)
	c.waitState("gateway-default", "ready")
	return c
}

// volume makes a named volume that lives as long as the test.
func volume(t testing.TB) string {
	t.Helper()
	name := uniqueName()
	mustDocker(t, "volume", "create", "--label", label(), name)
	t.Cleanup(func() { docker(t, "volume", "rm", "-f", name) })
	return name
}

// script writes an executable file to be mounted and returns its path.
func script(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	writeFile(t, path, text, 0o755)
	return path
}

func writeFile(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

// exec runs a command inside, as docker exec does.
func (c *container) exec(args ...string) result {
	c.t.Helper()
	return docker(c.t, append([]string{"exec", c.name}, args...)...)
}

// mustExec runs a command inside that has to succeed and returns its stdout.
func (c *container) mustExec(args ...string) string {
	c.t.Helper()
	return mustDocker(c.t, append([]string{"exec", c.name}, args...)...)
}

// logs is what `docker logs` shows.
func (c *container) logs() string {
	return docker(c.t, "logs", c.name).both()
}

// inspect returns one field of docker inspect.
func (c *container) inspect(format string) string {
	c.t.Helper()
	return mustDocker(c.t, "inspect", "-f", format, c.name)
}

// exitCode waits for the container to end by itself.
func (c *container) exitCode() int {
	c.t.Helper()
	until(c.t, "the container ends", func() error {
		if c.inspect("{{.State.Running}}") == "true" {
			return errors.New("it runs")
		}
		return nil
	})
	code, err := strconv.Atoi(c.inspect("{{.State.ExitCode}}"))
	if err != nil {
		c.t.Fatal(err)
	}
	return code
}

// stop is `docker stop`; it returns the exit code and how long it took.
func (c *container) stop() (int, time.Duration) {
	c.t.Helper()
	began := time.Now()
	mustDocker(c.t, "stop", c.name)
	took := time.Since(began)
	return c.exitCode(), took
}

// until polls check until it returns nil, and fails with its last error.
func until(t testing.TB, what string, check func() error) {
	t.Helper()
	untilWithin(t, patience, what, check)
}

// untilWithin is until with another patience.
func untilWithin(t testing.TB, patience time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s until %s: %v", patience, what, err)
		}
		time.Sleep(pollEvery)
	}
}

// logged waits until `docker logs` has text.
func (c *container) logged(text string) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("the logs say %q", text), func() error {
		if !strings.Contains(c.logs(), text) {
			return errors.New("they do not")
		}
		return nil
	})
}

// status is the answer of `hermes gateway status --all -o json`, as the
// contract has it.
type status struct {
	Schema   int       `json:"schema"`
	Manager  string    `json:"manager"`
	Services []service `json:"services"`
}

type service struct {
	Name     string     `json:"name"`
	Kind     string     `json:"kind"`
	Profile  *string    `json:"profile"`
	State    string     `json:"state"`
	Want     string     `json:"want"`
	Since    *time.Time `json:"since"`
	PID      *int       `json:"pid"`
	Restarts int        `json:"restarts"`
	Reason   string     `json:"reason"`
	Until    *time.Time `json:"until"`
	Holder   *struct {
		Host string `json:"host"`
	} `json:"holder"`
	LastExit *struct {
		Code   *int    `json:"code"`
		Signal *string `json:"signal"`
		Asked  bool    `json:"asked"`
		Reason string  `json:"reason"`
	} `json:"last_exit"`
	Platforms []struct {
		Name  string `json:"name"`
		State string `json:"state"`
	} `json:"platforms"`
}

func (s service) String() string {
	text, _ := json.Marshal(s) // plain data
	return string(text)
}

// status asks the product; an error is one that polling may cure.
func (c *container) status() (status, error) {
	c.t.Helper()
	var s status
	r := c.exec("hermes", "gateway", "status", "--all", "-o", "json")
	if r.code != 0 {
		return s, fmt.Errorf("status exits %d: %s", r.code, r.both())
	}
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		return s, fmt.Errorf("status is not JSON: %w: %s", err, r.stdout)
	}
	return s, nil
}

// service returns the row of one service.
func (c *container) service(name string) (service, error) {
	c.t.Helper()
	s, err := c.status()
	if err != nil {
		return service{}, err
	}
	for _, row := range s.Services {
		if row.Name == name {
			return row, nil
		}
	}
	return service{}, fmt.Errorf("no service %q in %+v", name, s.Services)
}

// waitState waits until a service is in a state, and returns its row.
func (c *container) waitState(name, state string) service {
	c.t.Helper()
	var row service
	until(c.t, fmt.Sprintf("%s is %s", name, state), func() error {
		var err error
		row, err = c.service(name)
		if err == nil && row.State != state {
			err = fmt.Errorf("it is %s", row)
		}
		if err != nil && c.inspect("{{.State.Running}}") != "true" {
			c.t.Fatalf("the container ended while %s was awaited: %v", name, err)
		}
		return err
	})
	return row
}

// wantService fails unless a service is in a state now.
func (c *container) wantService(name, state, want string) {
	c.t.Helper()
	row, err := c.service(name)
	if err != nil {
		c.t.Fatal(err)
	}
	if row.State != state || row.Want != want {
		c.t.Errorf("%s is %s and wanted %s; it should be %s and wanted %s", name, row.State, row.Want, state, want)
	}
}

// ask sends an HTTP request to a published port of the container. An error is
// one that polling may cure.
func (c *container) ask(port int, r request) (response, error) {
	c.t.Helper()
	address, _, _ := strings.Cut(mustDocker(c.t, "port", c.name, strconv.Itoa(port)), "\n")
	req, err := http.NewRequest(r.method, "http://"+address+r.path, strings.NewReader(r.body))
	if err != nil {
		c.t.Fatal(err)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return response{res.StatusCode, string(body), res.Header}, err
}

// mustAsk sends a request that has to be answered, whatever the answer.
func (c *container) mustAsk(port int, r request) response {
	c.t.Helper()
	res, err := c.ask(port, r)
	if err != nil {
		c.t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	return res
}

type request struct {
	method, path, body string
	header             map[string]string
}

type response struct {
	code   int
	body   string
	header http.Header
}
