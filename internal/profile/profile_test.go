package profile_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/profile"
)

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"work": true, "0": true, "a_b-c": true, "default": true, strings.Repeat("a", 64): true,
		"": false, strings.Repeat("a", 65): false, "Work": false, "-a": false, "_a": false, "a b": false, "a/b": false,
		"..": false, ".": false, "a\n": false, "\na": false, "ä": false, "a.b": false, "a\x00": false, "../../etc": false,
	} {
		if got := profile.ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %v", name, got)
		}
	}
}

// Whatever is asked for, a profile that is found lies in the data directory.
func TestFindStaysInside(t *testing.T) {
	data := t.TempDir()
	outside := filepath.Join(filepath.Dir(data), "outside")
	for _, dir := range []string{filepath.Join(data, "profiles", "a"), outside} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.OneOf(rapid.String(), rapid.StringMatching(`(\.\./){0,3}(a|outside|\.|)`)).Draw(rt, "name")
		p, err := profile.Find(data, name)
		if err == nil && p.Home != data && p.Home != filepath.Join(data, "profiles", "a") {
			rt.Fatalf("%q is at home in %q", name, p.Home)
		}
	})
}

func TestFind(t *testing.T) {
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "profiles", "work"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(data, "profiles", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "profiles", "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, home := range map[string]string{"": data, "default": data, "work": filepath.Join(data, "profiles", "work")} {
		if p, err := profile.Find(data, name); err != nil || p.Home != home || p.Name == "" {
			t.Errorf("Find(%q) = %+v, %v", name, p, err)
		}
	}
	for name, code := range map[string]int{"none": exitcode.NoSuch, "link": exitcode.NoSuch, "file": exitcode.NoSuch, "No Name": exitcode.Usage, "..": exitcode.Usage} {
		_, err := profile.Find(data, name)
		if exitcode.Of(err) != code || errors.Is(err, profile.ErrNotFound) != (code == exitcode.NoSuch) {
			t.Errorf("Find(%q): %v, code %d, want %d", name, err, exitcode.Of(err), code)
		}
	}
	_, err := profile.Find(data, "none")
	if want := `no such profile: "none"; create it with: hermes profile create none`; err == nil || err.Error() != want {
		t.Errorf("a missing profile says %v", err)
	}
}

func TestCreateAndList(t *testing.T) {
	data := t.TempDir()
	names := func() (names []string) {
		list, err := profile.List(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			names = append(names, p.Name)
		}
		return names
	}
	if got := names(); !slices.Equal(got, []string{"default"}) {
		t.Errorf("a fresh volume has %v", got)
	}
	for _, name := range []string{"work", "bot", "0"} {
		p, err := profile.Create(data, name)
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Lstat(p.Home); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("home of %s: %v %v", name, fi, err)
		}
	}
	for _, name := range []string{"work", "default", "", "Not A Name", "../x"} {
		if _, err := profile.Create(data, name); exitcode.Of(err) != exitcode.Usage {
			t.Errorf("Create(%q): %v", name, err)
		}
	}
	for _, stray := range []string{"Upper", ".hidden", "default"} {
		if err := os.Mkdir(filepath.Join(data, "profiles", stray), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/", filepath.Join(data, "profiles", "link")); err != nil {
		t.Fatal(err)
	}
	if got, want := names(), []string{"default", "0", "bot", "work"}; !slices.Equal(got, want) {
		t.Errorf("profiles %v, want %v", got, want)
	}
	said := strings.Join(profile.NotHomes(data), "\n")
	for _, want := range []string{"/profiles/Upper\" is no profile: use 1 to 64", "/profiles/default is no profile: the home of default is " + data, "/profiles/link is no profile: it is a link"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not said: %s", want, said)
		}
	}
	if n := strings.Count(said, "\n") + 1; n != 3 {
		t.Errorf("%d lines: %s", n, said)
	}
}

// Whatever stands in the file, the profile in use has a name that could be one,
// or there is an error; a link leads nowhere.
func TestInUse(t *testing.T) {
	data := t.TempDir()
	path := filepath.Join(data, "active_profile")
	if name, err := profile.InUse(data); name != profile.Default || err != nil {
		t.Errorf("without a file: %q, %v", name, err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z/.]{0,70}\n?`)).Draw(rt, "text")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			rt.Fatal(err)
		}
		if name, err := profile.InUse(data); err == nil && !profile.ValidName(name) {
			rt.Fatalf("%q is in use", name)
		}
	})
	for _, name := range []string{"work", profile.Default} {
		if err := profile.Use(data, name); err != nil {
			t.Fatal(err)
		}
		if got, err := profile.InUse(data); got != name || err != nil {
			t.Errorf("after Use(%q): %q, %v", name, got, err)
		}
	}
	if err := os.Symlink("/etc/hostname", path); err != nil {
		t.Fatal(err)
	}
	if name, err := profile.InUse(data); err == nil {
		t.Errorf("a link says %q", name)
	}
}

// Deleting a home that lies behind a link out of the data directory is refused.
func TestDiscardStaysInside(t *testing.T) {
	data, outside := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(outside, "work"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(data, "profiles")); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Find(data, "work")
	if err != nil {
		t.Fatal(err)
	}
	if err := profile.Discard(data, p); err == nil {
		t.Error("a home outside was discarded")
	}
	if err := profile.Remove(data, "profiles/work"); err == nil {
		t.Error("a home outside was removed")
	}
	if _, err := os.Stat(filepath.Join(outside, "work")); err != nil {
		t.Error(err)
	}
}
