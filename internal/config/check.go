package config

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const maxPort = 65535

// Truthy says whether value means yes: only 1, true and yes do, in any case
// and without blanks around them. Everything else, a typo too, means no.
func Truthy(value string) bool {
	switch strings.ToLower(value) {
	case "1", "true", "yes":
		return true
	}
	return false
}

const (
	yes = "true"
	no  = "false"
)

// check returns text in the normal form of its kind, or says what was
// expected. It never repeats a secret.
func (s Setting) check(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	switch s.Kind {
	case Int:
		return s.checkInt(text)
	case Port:
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > maxPort {
			return "", fmt.Errorf("expected a port from 0 to 65535 (0: any free one), got %q", text)
		}
		return strconv.Itoa(n), nil
	case Duration:
		return s.checkDuration(text)
	case Size:
		return s.checkSize(text)
	case Enum:
		return checkEnum(text, s.Values)
	case URL:
		if s.Secret {
			return checkSecretURL(text)
		}
		return checkURL(text)
	case List:
		return s.checkList(strings.Split(text, ","))
	case Bool:
		if s.strict() {
			return s.checkYAML(text)
		}
	case Text:
	}
	return s.checkText(text)
}

// checkText holds a text, or an item of a list, against the pattern of s.
func (s Setting) checkText(text string) (string, error) {
	if strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("expected text, found a NUL byte in it")
	}
	if s.Pattern == "" || regexp.MustCompile(`^(?:`+s.Pattern+`)$`).MatchString(text) {
		return text, nil
	}
	if s.Secret {
		return "", fmt.Errorf("expected %s", s.Shape)
	}
	return "", fmt.Errorf("expected %s, got %q", s.Shape, text)
}

// checkItem checks an item of a YAML list. An empty one is a mistake there: YAML
// takes what follows a # for a comment.
func (s Setting) checkItem(text string) (string, error) {
	switch {
	case strings.TrimSpace(text) == "":
		return "", fmt.Errorf("expected %s, found an empty item; quote one that begins with #, as in '#help'", s.itemShape())
	case strings.Contains(text, ","):
		return "", fmt.Errorf("expected %s, found a comma in it", s.itemShape())
	}
	return s.checkText(strings.TrimSpace(text))
}

func (s Setting) itemShape() string {
	if s.Shape == "" {
		return "text"
	}
	return s.Shape
}

// checkList returns the items with a comma between them. Blanks around an item
// do not count, and an empty one is none.
func (s Setting) checkList(items []string) (string, error) {
	var kept []string
	for _, item := range items {
		if item = strings.TrimSpace(item); item == "" || slices.Contains(kept, item) {
			continue
		}
		if _, err := s.checkText(item); err != nil {
			return "", err
		}
		kept = append(kept, item)
	}
	return strings.Join(kept, ","), nil
}

// checkYAML is check for config.yaml, where a mistyped bool is an error: a
// variable with a typo means no, because that is what its users know.
func (s Setting) checkYAML(text string) (string, error) {
	if s.Kind != Bool {
		return s.check(text)
	}
	switch lower := strings.ToLower(text); {
	case Truthy(text):
		return yes, nil
	case slices.Contains([]string{"", "0", no, "no"}, lower):
		return no, nil
	}
	return "", fmt.Errorf("expected true or false, got %q", text)
}

func (s Setting) checkInt(text string) (string, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < s.Min || n > s.highest(math.MaxInt32) {
		return "", fmt.Errorf("expected a whole number %s, got %q", s.bounds(intText), text)
	}
	return strconv.FormatInt(n, 10), nil
}

func (s Setting) checkDuration(text string) (string, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return "", fmt.Errorf("expected a duration such as 250ms or 1m30s, got %q", text)
	}
	if int64(d) < s.Min || int64(d) > s.highest(math.MaxInt64) {
		return "", fmt.Errorf("expected a duration %s, got %q", s.bounds(durationText), text)
	}
	return d.String(), nil
}

func (s Setting) checkSize(text string) (string, error) {
	n, ok := parseSize(text)
	if !ok {
		return "", fmt.Errorf("expected a number of bytes such as 65536, 64KiB or 1MiB, got %q", text)
	}
	if n < s.Min || n > s.highest(math.MaxInt64) {
		return "", fmt.Errorf("expected a number of bytes %s, got %q", s.bounds(SizeText), text)
	}
	return SizeText(n), nil
}

func (s Setting) highest(without int64) int64 {
	if s.Max == 0 {
		return without
	}
	return s.Max
}

// bounds says in words which numbers s takes.
func (s Setting) bounds(write func(int64) string) string {
	if s.Max == 0 {
		return "of at least " + write(s.Min)
	}
	return "from " + write(s.Min) + " to " + write(s.Max)
}

func intText(n int64) string      { return strconv.FormatInt(n, 10) }
func durationText(n int64) string { return time.Duration(n).String() }

// sizeUnits from the largest; each is 1024 of the next.
func sizeUnits() []string { return []string{"GiB", "MiB", "KiB"} }

// parseSize reads a number of bytes with or without a unit.
func parseSize(text string) (n int64, ok bool) {
	factor := int64(1)
	for i, unit := range sizeUnits() {
		if number, found := strings.CutSuffix(text, unit); found {
			text, factor = strings.TrimSuffix(number, " "), 1<<(10*(len(sizeUnits())-i))
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return 0, false
	}
	return n * factor, true
}

// SizeText writes n bytes in the largest unit that needs no fraction.
func SizeText(n int64) string {
	for i, unit := range sizeUnits() {
		if factor := int64(1) << (10 * (len(sizeUnits()) - i)); n >= factor && n%factor == 0 {
			return strconv.FormatInt(n/factor, 10) + unit
		}
	}
	return strconv.FormatInt(n, 10)
}

func checkEnum(text string, values []string) (string, error) {
	lower := strings.ToLower(text)
	if !slices.Contains(values, lower) {
		return "", fmt.Errorf("expected one of %s, got %q", strings.Join(values, ", "), text)
	}
	return lower, nil
}

// checkSecretURL lets credentials into a URL, and that into no message.
func checkSecretURL(text string) (string, error) {
	if _, ok := webURL(text); !ok {
		return "", fmt.Errorf("expected an http or https URL")
	}
	return text, nil
}

// checkURL keeps credentials out of URLs: they would show in logs and status.
func checkURL(text string) (string, error) {
	user, ok := webURL(text)
	if !ok {
		return "", fmt.Errorf("expected an http or https URL, got %q", text)
	}
	if user {
		return "", fmt.Errorf("expected a URL without user name and password; give the key in its own setting")
	}
	return text, nil
}
