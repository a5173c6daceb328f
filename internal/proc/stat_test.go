package proc

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// stat is a line of /proc/PID/stat with the given name and the fields that
// are read.
func stat(name string, ppid, session int, start uint64) []byte {
	f := []string{"S", fmt.Sprint(ppid), "7", fmt.Sprint(session)}
	for len(f) < fieldStart {
		f = append(f, "0")
	}
	return []byte("42 (" + name + ") " + strings.Join(append(f, fmt.Sprint(start), "9", "3", "9"), " ") + "\n")
}

func TestParseStatNames(t *testing.T) {
	for _, name := range []string{"sh", "a b", "a) S 1 2 3", ") (", "(", ")", "", "((", "a)b(c", "42 (x) Z 1", "\n", "tmux: server"} {
		p, err := parseStat(42, stat(name, 3, 5, 77))
		want := Process{PID: 42, PPID: 3, Session: 5, Comm: name, State: 'S', Start: 77, Resident: 3 * int64(os.Getpagesize())}
		if err != nil || p != want {
			t.Errorf("a process called %q: %+v, %v; want %+v", name, p, err, want)
		}
	}
}

func TestParseStatRefuses(t *testing.T) {
	for _, line := range []string{"", "42", "42 (sh", "42 sh) S 1", "42 )sh( S 1 2", "42 (sh) S 1 2 3", strings.Replace(string(stat("sh", 1, 1, 1)), " S ", " SS ", 1), strings.Replace(string(stat("sh", 1, 1, 1)), " S 1 ", " S x ", 1)} {
		if p, err := parseStat(42, []byte(line)); err == nil {
			t.Errorf("%q was read as %+v", line, p)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add(stat("sh", 1, 1, 1))
	f.Add(stat("a) R 1 1 1 (", 0, 0, 0))
	f.Add([]byte("1 (x) S"))
	if own, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(own)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseStat(42, b)
		if err != nil {
			if p != (Process{}) {
				t.Errorf("an error beside %+v", p)
			}
			return
		}
		// What was understood can be written and read again.
		line := strings.Replace(string(stat(p.Comm, p.PPID, p.Session, p.Start)), ") S ", ") "+string(rune(p.State))+" ", 1)
		p.Resident = 3 * int64(os.Getpagesize())
		if p.State >= 0x80 || strings.ContainsAny(p.Comm, ")") || p.State == ' ' {
			return
		}
		if again, err := parseStat(42, []byte(line)); err != nil || again != p {
			t.Errorf("%+v was read again as %+v, %v", p, again, err)
		}
	})
}

func TestParseTag(t *testing.T) {
	tag := TagOf(0xabcdef)
	line := func(soft, hard string) string {
		return "Max realtime priority     0                    0                    \n" +
			"Max realtime timeout      " + soft + "      " + hard + "            us        \n"
	}
	for text, want := range map[string]Tag{
		line(fmt.Sprint(uint64(tag)), fmt.Sprint(uint64(tag))): tag,
		line("1000000", fmt.Sprint(uint64(tag))):               tag, // a soft limit may move
		line("unlimited", "unlimited"):                         0,
		line("200000", "200000"):                               0, // somebody's own limit
		line("18446744073709551615", "18446744073709551615"):   0,
		"Max realtime timeout\n":                               0,
		"":                                                     0,
	} {
		if got := parseTag([]byte(text)); got != want {
			t.Errorf("%q: tag %x, want %x", text, got, want)
		}
	}
	if TagOf(1) == TagOf(2) || TagOf(1) != TagOf(1|1<<60) || TagOf(0) == 0 {
		t.Error("tags are not the lowest 48 bits of their number")
	}
}

func FuzzParseTag(f *testing.F) {
	f.Add([]byte("Max realtime timeout      unlimited            unlimited            us"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if tag := parseTag(b); tag != 0 && uint64(tag)&^tagMask != tagBase {
			t.Errorf("%q has the tag %x", b, tag)
		}
	})
}
