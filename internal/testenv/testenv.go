// Package testenv says what a test needs from its machine and makes a test
// that could not run visible: it skips on a laptop and fails where the need is
// demanded. It installs nothing; `make deps` does.
//
//	testenv.Need(t, "docker")
package testenv

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// RequireVar lists the needs (comma separated, or "all") whose absence fails a
// test instead of skipping it.
const RequireVar = "HERMES_TEST_REQUIRE"

// programs names the command that proves each need; the map is read only here.
func program(need string) []string {
	switch need {
	case "docker":
		return []string{"docker", "version", "--format", "{{.Server.Version}}"}
	case "s6":
		return []string{"s6-svscan", "--help"}
	case "chromium":
		return []string{"chromium", "--version"}
	case "ngircd":
		return []string{"/usr/sbin/ngircd"} // outside the PATH of users
	default:
		return []string{need}
	}
}

// Need skips t, or fails it where RequireVar demands the need, unless the
// machine has it: docker (a daemon that answers), s6, chromium, root (the user
// who runs the test), or any other word taken as a program on PATH.
func Need(t testing.TB, need string) {
	t.Helper()
	why := missing(need)
	if why == "" {
		return
	}
	if Required(need) {
		t.Fatalf("%s is required by %s: %s", need, RequireVar, why)
	}
	t.Skipf("needs %s: %s", need, why)
}

// Required says whether RequireVar demands need.
func Required(need string) bool {
	list := strings.Split(os.Getenv(RequireVar), ",")
	return slices.Contains(list, "all") || slices.Contains(list, need)
}

func missing(need string) string {
	if need == "root" {
		if os.Geteuid() != 0 {
			return "the test is run by another user"
		}
		return ""
	}
	argv := program(need)
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return argv[0] + " is not installed"
	}
	if need != "docker" {
		return ""
	}
	if out, err := exec.Command(path, argv[1:]...).CombinedOutput(); err != nil {
		return "the Docker daemon does not answer: " + strings.TrimSpace(string(out))
	}
	return ""
}

// WriteFile is os.WriteFile for a file that is going to be executed. No fork of this
// process happens meanwhile: a child that holds the file open for writing, if
// only until its own exec, makes the exec fail with "text file busy"
// (golang/go#22315).
func WriteFile(path string, content []byte, mode os.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, content, mode)
}
