package exitcode_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/hermesgw/hermes/internal/exitcode"
)

func TestOf(t *testing.T) {
	cause := errors.New("cause")
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"no error":                 {nil, 0},
		"an error without a code":  {cause, 1},
		"with a code":              {exitcode.With(exitcode.Config, cause), 78},
		"wrapped once more":        {fmt.Errorf("cannot start: %w", exitcode.With(exitcode.NoSuch, cause)), 3},
		"joined with another":      {errors.Join(cause, exitcode.With(exitcode.Usage, cause)), 2},
		"the outer code counts":    {exitcode.With(exitcode.Down, exitcode.With(exitcode.Usage, cause)), 69},
		"the largest":              {exitcode.Silent(255), 255},
		"too large for a process":  {exitcode.Silent(256), 1},
		"negative":                 {exitcode.Silent(-1), 1},
		"zero, with an error":      {exitcode.With(exitcode.OK, cause), 0},
		"nothing to attach it to":  {exitcode.With(exitcode.Config, nil), 0},
		"silent but not a success": {exitcode.Silent(exitcode.Permanent), 125},
	} {
		if got := exitcode.Of(c.err); got != c.want {
			t.Errorf("%s: code %d, want %d", name, got, c.want)
		}
	}
}

func TestErrorKeepsItsCause(t *testing.T) {
	err := exitcode.With(exitcode.Config, fmt.Errorf("cannot read: %w", fs.ErrPermission))
	if !errors.Is(err, fs.ErrPermission) || err.Error() != "cannot read: permission denied" {
		t.Errorf("%v hides its cause", err)
	}
	if text := exitcode.Silent(125).Error(); text != "exit code 125" {
		t.Errorf("a silent exit says %q", text)
	}
}

// The table is what the reference page shows: complete, ascending, once each.
func TestTable(t *testing.T) {
	var codes []int
	for _, e := range exitcode.Table() {
		if e.Meaning == "" {
			t.Errorf("code %d has no meaning", e.Code)
		}
		codes = append(codes, e.Code)
	}
	if want := []int{0, 1, 2, 3, 69, 75, 78, 126, 127}; !slices.Equal(codes, want) {
		t.Errorf("codes %v, want those of the contract %v", codes, want)
	}
}
