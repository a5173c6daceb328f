package chaos

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// mutant is one protection taken away, in the source, and what must find that.
type mutant struct {
	protection string
	file       string // relative to the root
	old        string // occurs exactly once in file
	new        string
	kinds      []string // of fault, those that the protection is for
	faults     int      // until it must be found
	found      []string // kinds of violation, one of which must be found
}

const (
	turnFile   = "internal/turn/turn.go"
	workFile   = "internal/turn/work.go"
	turnsFile  = "internal/store/turns.go"
	runsFile   = "internal/gateway/runs.go"
	outboxFile = "internal/outbox/outbox.go"
)

// mutants is the protections that accepted means answered rests on.
func mutants() []mutant {
	return []mutant{
		{
			protection: "a message is committed before it is acknowledged", file: runsFile,
			old: `kept, _, fresh, err := g.accept(r, m)`,
			new: `kept, fresh, err := m, true, error(nil)
	time.AfterFunc(200*time.Millisecond, func() { g.accept(r, m) })`,
			kinds: []string{"kill -9"}, faults: 12, found: []string{"lost"},
		},
		{
			protection: "a message is accepted once for each account and id", file: turnsFile,
			old:   `known, err := scanMessage(func(dest ...any) error {`,
			new:   "m.External = m.ID\n\tknown, err := scanMessage(func(dest ...any) error {",
			kinds: []string{"kill -9"}, faults: 6, found: []string{"doubled", "asked again", "order"},
		},
		{
			protection: "the turns of a chat run one after the other", file: turnFile,
			old:   "if ln == nil {\n\t\tln = &lane{}",
			new:   "if true {\n\t\tln = &lane{}",
			kinds: []string{"SIGSTOP"}, faults: 6, found: []string{"order"},
		},
		{
			protection: "what the last process left is resumed", file: turnFile,
			old:   "e.enqueue(newLive(m))\n\t}\n\tif len(open)",
			new:   "_ = m\n\t}\n\tif len(open)",
			kinds: []string{"kill -9"}, faults: 3, found: []string{"lost", "empty"},
		},
		{
			protection: "a delivery in doubt is labelled", file: outboxFile,
			old:   `repeat := p.Unsure && !b.limits.Dedupes`,
			new:   `repeat := false`,
			kinds: []string{"kill -9 with an IRC answer in doubt", "IRC reset with an answer in doubt"}, faults: 12, found: []string{"doubled"},
		},
		{
			protection: "that a delivery begins is committed first", file: outboxFile,
			old:   `if !b.persist(ctx, func() error { return b.o.Store.Trying(ctx, p.Seq) }) {`,
			new:   `if false {`,
			kinds: []string{"kill -9 with an IRC answer in doubt"}, faults: 12, found: []string{"doubled"},
		},
		{
			protection: "the end of a turn is committed again until the disk takes it", file: workFile,
			old: `if e.persist(e.ctx, "store the end of a turn", m.ID, func(ctx context.Context) error {
		return e.commit(ctx, l, joined, o)
	}) != nil {`,
			new:   `if e.commit(context.WithoutCancel(e.ctx), l, joined, o) != nil {`,
			kinds: []string{"disk full"}, faults: 12, found: []string{"lost", "empty", "order", "asked again"},
		},
		{
			protection: "an answer and its delivery are committed together", file: turnsFile,
			old:   `for _, p := range o.Parts {`,
			new:   `for _, p := range o.Parts[:0] {`,
			kinds: []string{"kill -9"}, faults: 2, found: []string{"lost"},
		},
	}
}

// TestEachProtectionIsNeeded takes one away after the other. If the checker
// found nothing then, it would not have seen anything before either.
func TestEachProtectionIsNeeded(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants() {
		t.Run(m.protection, func(t *testing.T) {
			t.Parallel()
			cards := deck(rand.New(rand.NewPCG(1, 0)), named(t, m.kinds...), m.faults)
			p := plan{seed: 1, faults: cards, settle: 15 * time.Second, until: m.found, binary: build(t, root, m)}
			c, found := live(t, p)
			i := slices.IndexFunc(found, func(v violation) bool { return slices.Contains(m.found, v.kind) })
			if i < 0 {
				t.Fatalf("nothing like %q was found after %d faults, only %v:\n%s", m.found, m.faults, found, c)
			}
			t.Logf("found: %s\n%s", found[i], c)
		})
	}
}

// build compiles the product with m in it.
func build(t *testing.T, root string, m mutant) string {
	t.Helper()
	original := filepath.Join(root, m.file)
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		t.Fatalf("%q stands %d times in %s, want once: the protection moved, mend the table", m.old, n, m.file)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // the container's user reads it
		t.Fatal(err)
	}
	mutated := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(mutated, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "hermes")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-overlay", list, "-o", binary, "./cmd/hermes")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not compile: %v\n%s", err, out)
	}
	return binary
}
