package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// draft is a copy of a file in the user's editor.
type draft struct {
	o      *options
	before []byte
	path   string
	answer *bufio.Reader
}

// newDraft keeps the copy where only its owner can look; its name tells the
// editor what it is.
func newDraft(o *options, before []byte) (*draft, error) {
	dir, err := os.MkdirTemp("", "hermes-config-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a copy to edit: %w", err)
	}
	d := &draft{o: o, before: before, path: filepath.Join(dir, "config.yaml"), answer: bufio.NewReader(o.in)}
	if err := os.WriteFile(d.path, before, 0o600); err != nil {
		d.remove()
		return nil, fmt.Errorf("cannot make a copy to edit: %w", err)
	}
	return d, nil
}

func (d *draft) remove() { _ = os.RemoveAll(filepath.Dir(d.path)) } // a copy left in the temporary directory harms nobody

// open runs the editor and returns what it leaves.
func (d *draft) open() ([]byte, error) {
	editor := userEditor(os.Getenv)
	cmd := exec.Command("/bin/sh", "-c", editor+` "$1"`, "sh", d.path) // the variables may hold arguments
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.o.in, d.o.out, d.o.err
	failed := cmd.Run()
	data, err := os.ReadFile(d.path)
	switch {
	case failed != nil && (err != nil || bytes.Equal(data, d.before)):
		d.remove()
		return nil, fmt.Errorf("the editor %q failed: %w; nothing was changed; set EDITOR, or use: hermes config set", editor, failed)
	case failed != nil:
		return nil, fmt.Errorf("the editor %q failed: %w; nothing was changed, and what you wrote is in %s", editor, failed, d.path)
	case err != nil:
		return nil, fmt.Errorf("cannot read what the editor left: %w", err)
	}
	return data, nil
}

func userEditor(getenv func(string) string) string {
	for _, name := range []string{"VISUAL", "EDITOR"} {
		if editor := strings.TrimSpace(getenv(name)); editor != "" {
			return editor
		}
	}
	return "vi"
}

// again asks whether to go on; the end of the input means no.
func (d *draft) again() bool {
	fmt.Fprint(d.o.err, "edit again? [Y/n] ")
	line, err := d.answer.ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(d.o.err)
		return false
	}
	return !strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "n")
}
