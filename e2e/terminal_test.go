package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a person's terminal with a program in it.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	seen strings.Builder
	done chan struct{} // closed when the program's output ended
}

// inTerminal starts argv on a pseudo-terminal of its own.
func inTerminal(t *testing.T, argv ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	slave := openSlave(t, master)
	defer slave.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: master, cmd: cmd, done: make(chan struct{})}
	go term.read()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // gone already when all went well
		_ = cmd.Wait()
		<-term.done
		master.Close()
	})
	return term
}

// openSlave unlocks and opens the other end (ptmx(4)).
func openSlave(t *testing.T, master *os.File) *os.File {
	t.Helper()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return slave
}

// read collects the screen until the program is gone: EIO, by pts(4).
func (term *terminal) read() {
	defer close(term.done)
	buf := make([]byte, 4096)
	for {
		n, err := term.master.Read(buf)
		term.mu.Lock()
		term.seen.Write(buf[:n])
		term.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (term *terminal) screen() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.seen.String()
}

// say types text and waits for an answer, which must not be in text: the
// terminal echoes that.
func (term *terminal) say(text, answer string) {
	term.t.Helper()
	before := len(term.screen())
	if _, err := term.master.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
	term.expect(before, answer)
}

func (term *terminal) expect(from int, answer string) {
	term.t.Helper()
	until(term.t, fmt.Sprintf("the terminal shows %q", answer), func() error {
		if screen := term.screen(); !strings.Contains(screen[from:], answer) {
			return fmt.Errorf("it shows %q", screen)
		}
		return nil
	})
}

const ctrlC, ctrlZ = "\x03", "\x1a"

func TestTerminalJobControlAndCtrlC(t *testing.T) {
	parallel(t)
	c := reserve(t)
	term := inTerminal(t, append([]string{"docker"}, c.runArgs([]string{"-it"}, spec{
		env: []string{"PS1=ready> "}, cmd: []string{"bash", "--norc"},
	})...)...)
	term.expect(0, "ready> ")
	term.say("tty\n", "/dev/pts/")
	term.say("sleep 1000 &\n", "[1] ")
	term.say("jobs\n", "Running")
	term.say("fg\n", "sleep 1000")
	term.say(ctrlZ, "Stopped")
	term.say("fg\n", "sleep 1000")
	term.say(ctrlC, "ready> ")
	term.say("echo alive $((40+2))\n", "alive 42")
	if strings.Contains(term.screen(), "no job control") || strings.Contains(term.screen(), "cannot set terminal process group") {
		t.Errorf("bash has no job control: %q", term.screen())
	}
	term.say("exit 5\n", "")
	if err := term.cmd.Wait(); term.cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("docker run -it ends with %v, want exit status 5; screen: %q", err, term.screen())
	}
}

func TestTerminalIsStoppedByDockerStop(t *testing.T) {
	parallel(t)
	c := reserve(t)
	term := inTerminal(t, append([]string{"docker"}, c.runArgs([]string{"-it"}, spec{
		env: []string{"PS1=ready> "}, cmd: []string{"bash", "--norc"},
	})...)...)
	term.expect(0, "ready> ")
	if _, took := c.stop(); took > quick {
		t.Errorf("docker stop of an idle shell takes %s", took)
	}
}
