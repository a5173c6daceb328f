package chaos

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/model/modelserver"
	"github.com/hermesgw/hermes/internal/testenv"
)

const (
	// patience is the deadline of what should take seconds.
	patience = 90 * time.Second
	// volumeSize is small enough to be filled at once, and holds the database of
	// the long run.
	volumeSize = "64m"
	apiKey     = "chaos-key"
	// bot is the gateway's nick.
	bot = "hermes"
	// slot is where the gateway is supervised.
	slot = "/run/service/gateway-default"
	// piece is how long the model thinks about a word.
	piece = 30 * time.Millisecond
)

func label() string {
	if run := os.Getenv("HERMES_TEST_RUN"); run != "" {
		return "hermes.e2e=" + run
	}
	return "hermes.e2e=1"
}

func image() string {
	if name := os.Getenv("HERMES_TEST_IMAGE"); name != "" {
		return name
	}
	return "hermes:dev"
}

// docker runs the docker command and returns its stdout.
func docker(args ...string) (string, error) { return dockerWithin(context.Background(), args...) }

func dockerWithin(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("docker %q: %w: %s", args, err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

func mustDocker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := docker(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// revision is the commit that the image was built from.
func revision(t testing.TB) string {
	t.Helper()
	return mustDocker(t, "image", "inspect", "-f", `{{index .Config.Labels "org.opencontainers.image.revision"}}`, image())
}

func uniqueName() string { return "hermes-chaos-" + strings.ToLower(rand.Text()[:10]) }

// world is one gateway and everything around it: a network of its own, a volume
// that can be filled, a model server and an IRC server.
type world struct {
	t       testing.TB
	network string
	gateway string // the container
	keeper  string // a container that holds the volume, and fills it
	ip      string // of the gateway, always the same
	bridge  string // our address on the network
	ircd    string // address of the IRC server, for people
	wire    *wire  // between the gateway and the IRC server
	model   *modelserver.Server
	url     string // of the model server
	ledger  *ledger
	ended   int // processes of the gateway that the fault under way has killed
}

// newWorld starts everything; binary takes the place of the image's hermes
// unless it is empty.
func newWorld(t testing.TB, binary string) *world {
	t.Helper()
	testenv.Need(t, "docker")
	testenv.Need(t, "ngircd")
	if _, err := docker("image", "inspect", image()); err != nil {
		t.Fatalf("there is no image %s; build it with: make image", image())
	}
	w := &world{t: t, ledger: newLedger(), gateway: uniqueName()}
	w.makeNetwork()
	w.startModel()
	w.startIRC()
	volume := w.makeVolume()
	w.start(volume, binary)
	return w
}

// makeNetwork makes an internal network on which the gateway can have the same
// address again after it was cut off. Docker allows that only where the subnet
// was chosen by hand: so it is asked which one is free.
func (w *world) makeNetwork() {
	w.t.Helper()
	w.network = uniqueName()
	w.t.Cleanup(func() { _, _ = docker("network", "rm", w.network) })
	const attempts = 5 // somebody else may take the subnet between the two calls
	var err error
	for range attempts {
		mustDocker(w.t, "network", "create", "--internal", "--label", label(), w.network)
		subnet := mustDocker(w.t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", w.network)
		w.bridge = mustDocker(w.t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", w.network)
		mustDocker(w.t, "network", "rm", w.network)
		if _, err = docker("network", "create", "--internal", "--label", label(), "--subnet", subnet, "--gateway", w.bridge, w.network); err == nil {
			ip := net.ParseIP(w.bridge).To4()
			ip[3] += 9
			w.ip = ip.String()
			return
		}
	}
	w.t.Fatal(err)
}

func (w *world) startModel() {
	w.t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(w.bridge, "0"))
	if err != nil {
		w.t.Fatalf("cannot listen on the bridge of the network; does the Docker engine run on this machine? %v", err)
	}
	w.model = modelserver.New(modelserver.Options{Piece: piece})
	server := &http.Server{Handler: w.model, ConnContext: modelserver.KeepConnection}
	go func() { _ = server.Serve(l) }() // ends with Close
	w.t.Cleanup(func() { w.model.Close(); server.Close() })
	w.url = "http://" + l.Addr().String() + "/v1"
}

// startIRC runs a real IRC server on loopback, for people; the gateway reaches it
// over the wire.
func (w *world) startIRC() {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.ircd = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(w.ircd)
	config := filepath.Join(w.t.TempDir(), "ngircd.conf")
	text := fmt.Sprintf("[Global]\nName = irc.example.net\nInfo = test\nListen = 127.0.0.1\nPorts = %s\nMotdPhrase = hello\n"+
		"ServerUID = %d\nServerGID = %d\n[Limits]\nMaxConnectionsIP = 0\nMaxNickLength = 30\nMaxPenaltyTime = 0\n"+
		"[Options]\nDNS = no\nIdent = no\nPAM = no\n", port, os.Geteuid(), os.Getegid())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command("ngircd", "-n", "-f", config)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	w.until("ngircd listens", func() error {
		conn, err := net.Dial("tcp", w.ircd)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if w.wire, err = newWire(w.bridge, w.ircd); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.wire.close)
}

// makeVolume makes a volume that lives in memory, so that it can be small; a
// container that does nothing keeps it while the gateway's is down.
func (w *world) makeVolume() string {
	w.t.Helper()
	volume := uniqueName()
	w.keeper = volume + "-keeper"
	w.t.Cleanup(func() {
		_, _ = docker("rm", "-fv", w.keeper)
		_, _ = docker("volume", "rm", "-f", volume)
	})
	mustDocker(w.t, "volume", "create", "--label", label(), "--driver", "local",
		"--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size="+volumeSize+",uid=10000,gid=0,mode=2775", volume)
	mustDocker(w.t, "run", "-d", "--name", w.keeper, "--label", label(), "--network", "none",
		"-v", volume+":/opt/data", "--entrypoint", "sleep", image(), "infinity")
	return volume
}

func (w *world) start(volume, binary string) {
	w.t.Helper()
	args := []string{"run", "-d", "--name", w.gateway, "--label", label(), "--network", w.network, "--ip", w.ip, "-v", volume + ":/opt/data"}
	if binary != "" {
		args = append(args, "-v", binary+":/usr/local/bin/hermes:ro")
	}
	for _, env := range []string{
		"API_SERVER_HOST=0.0.0.0", "API_SERVER_KEY=" + apiKey, "HERMES_BACKOFF_MAX=1",
		"HERMES_MODEL_PROVIDER=openai", "HERMES_MODEL_BASE_URL=" + w.url, "HERMES_MODEL_API_KEY=none", "HERMES_MODEL_NAME=scripted",
		// A conversation of the long run fits; a model server that is cut off for a
		// while is waited for.
		"HERMES_MODEL_CONTEXT_TOKENS=200000", "HERMES_MODEL_RETRIES=20",
		"IRC_SERVER=" + w.wire.address(), "IRC_TLS=false", "IRC_NICK=" + bot, "IRC_ALLOW=*",
	} {
		args = append(args, "-e", env)
	}
	w.t.Cleanup(func() {
		if w.t.Failed() {
			logs, _ := exec.Command("docker", "logs", "--tail", "200", w.gateway).CombinedOutput()
			w.t.Logf("the last of docker logs:\n%s", logs)
		}
		_, _ = docker("rm", "-fv", w.gateway)
	})
	mustDocker(w.t, append(args, image(), "gateway", "run")...)
	w.until("the gateway serves HTTP and IRC", w.ready)
}

// ready says why the gateway does not serve everything; nil if it does.
func (w *world) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	code, body, err := w.ask(ctx, http.MethodGet, "/readyz", "", "")
	switch {
	case err != nil:
		return err
	case code != http.StatusOK || !strings.Contains(body, `"ready"`):
		return fmt.Errorf("%d: %s", code, body)
	}
	return nil
}

// alive says whether a gateway answers at all.
func (w *world) alive() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	code, _, err := w.ask(ctx, http.MethodGet, "/livez", "", "")
	return err == nil && code == http.StatusOK
}

// exec runs a command in the gateway's container.
func (w *world) exec(args ...string) error {
	_, err := docker(append([]string{"exec", w.gateway}, args...)...)
	return err
}

// until polls check until it returns nil, and fails with its last error.
func (w *world) until(what string, check func() error) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %s until %s: %v", patience, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
