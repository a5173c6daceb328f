package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/hermesgw/hermes/internal/testenv"
)

// TestComposeFile brings the published Compose file up as it is: hardened,
// answering, stopped with 0.
func TestComposeFile(t *testing.T) {
	testenv.Need(t, "docker-compose")
	parallel(t)
	project := strings.ReplaceAll(uniqueName(), "-", "")
	compose := func(args ...string) (string, error) {
		cmd := exec.Command("docker-compose", append([]string{"-p", project, "-f", filepath.Join("..", "deploy", "compose", "compose.yaml")}, args...)...)
		cmd.Env = append(os.Environ(), "HERMES_IMAGE="+image(), "HERMES_API_PORT=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", errors.New(string(out))
		}
		return strings.TrimSpace(string(out)), nil
	}
	t.Cleanup(func() {
		if out, err := compose("down", "-v"); err != nil {
			t.Errorf("cannot take the project down: %v %s", err, out)
		}
	})
	if _, err := compose("up", "-d"); err != nil {
		t.Fatal(err)
	}
	id, err := compose("ps", "-q", "hermes")
	if err != nil {
		t.Fatal(err)
	}
	c := &container{t, id}
	c.waitState("gateway-default", "ready")
	if reply := c.mustExec("hermes", "chat", "hello compose"); !strings.Contains(reply, "hello compose") {
		t.Errorf("the reply is %q", reply)
	}
	if r := c.exec("touch", "/etc/x"); r.code == 0 {
		t.Error("the root filesystem can be written")
	}
	if _, err := compose("stop"); err != nil {
		t.Fatal(err)
	}
	if code := c.inspect("{{.State.ExitCode}}"); code != "0" {
		t.Errorf("the container exits %s, want 0", code)
	}
}

// TestKubernetesManifest checks what can be checked without a cluster: the
// form, and that the stop budget is a second less than the grace period.
func TestKubernetesManifest(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "deploy", "kubernetes", "hermes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Kind string
		Spec struct {
			Template struct {
				Spec struct {
					Grace      int `yaml:"terminationGracePeriodSeconds"`
					Containers []struct {
						Args []string
						Env  []struct{ Name, Value string }
					}
				}
			}
		}
	}
	if err := yaml.NewDecoder(strings.NewReader(string(b))).Decode(&set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	if set.Kind != "StatefulSet" || len(pod.Containers) != 1 || strings.Join(pod.Containers[0].Args, " ") != "gateway run" {
		t.Fatalf("not one StatefulSet of one container that runs `gateway run`: %+v", set)
	}
	for _, e := range pod.Containers[0].Env {
		if e.Name == "HERMES_STOP_TIMEOUT" {
			if e.Value != "29" || pod.Grace != 30 {
				t.Errorf("HERMES_STOP_TIMEOUT is %s beside a grace period of %d s", e.Value, pod.Grace)
			}
			return
		}
	}
	t.Error("HERMES_STOP_TIMEOUT is not set")
}
