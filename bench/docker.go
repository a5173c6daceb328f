package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"strings"
	"time"
)

const (
	// label marks everything that a run makes; its value is the run.
	label = "hermes.bench"
	// sweepPatience bounds the removal of what a run made.
	sweepPatience = 2 * time.Minute
)

//go:embed peers
var peerFiles embed.FS

// docker drives the docker command. All that it makes carries the label of
// its run, so that sweep finds it, whatever happened in between.
type docker struct{ run string }

func newDocker() docker { return docker{run: strings.ToLower(rand.Text()[:10])} }

func (d docker) labelled() string { return label + "=" + d.run }

// out runs docker with args and returns its stdout without surrounding space.
func (d docker) out(ctx context.Context, args ...string) (string, error) {
	return d.pipe(ctx, nil, args...)
}

func (d docker) pipe(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("cannot run docker %q: %w: %s", args, err, lastLine(stdout.String()+stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// buildPeers makes the image of the peers on top of image and returns its name.
func (d docker) buildPeers(ctx context.Context, image string) (string, error) {
	files, err := fs.Sub(peerFiles, "peers")
	if err != nil {
		return "", err
	}
	var buildContext bytes.Buffer
	archive := tar.NewWriter(&buildContext)
	if err := errors.Join(archive.AddFS(files), archive.Close()); err != nil {
		return "", fmt.Errorf("cannot pack the build context: %w", err)
	}
	name := "hermes-bench:" + d.run
	_, err = d.pipe(ctx, &buildContext, "build", "-q", "-t", name, "--label", d.labelled(), "--build-arg", "IMAGE="+image, "-")
	return name, err
}

// sweep removes every container, every volume and, but for those named keep, every image of
// this run. It works on after Ctrl-C, and twice, for a docker run that was
// interrupted may leave a container a moment later.
func (d docker) sweep(ctx context.Context, keepImage bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sweepPatience)
	defer cancel()
	var errs []error
	for range 2 {
		ids, err := d.out(ctx, "ps", "-aq", "--filter", "label="+d.labelled())
		errs = append(errs, err, d.removeAll(ctx, []string{"rm", "-fv"}, ids))
	}
	volumes, err := d.out(ctx, "volume", "ls", "-q", "--filter", "label="+d.labelled())
	errs = append(errs, err, d.removeAll(ctx, []string{"volume", "rm", "-f"}, volumes))
	if keepImage {
		return errors.Join(errs...)
	}
	ids, err := d.out(ctx, "images", "-q", "--filter", "label="+d.labelled())
	return errors.Join(append(errs, err, d.removeAll(ctx, []string{"rmi", "-f"}, ids))...)
}

func (d docker) removeAll(ctx context.Context, command []string, ids string) error {
	if ids == "" {
		return nil
	}
	_, err := d.out(ctx, append(command, strings.Fields(ids)...)...)
	return err
}
