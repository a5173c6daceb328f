package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/secret"
)

const value = "sk-hunter2"

// holder has its secret where no fmt verb can call a method: an unexported
// field, which fmt reads by reflection.
type holder struct {
	key  secret.String
	keys []secret.String
	byID map[string]secret.String
	any  any
}

// public can be marshalled.
type public struct{ Key secret.String }

func TestNoVerbShowsIt(t *testing.T) {
	s := secret.New(value)
	h := holder{s, []secret.String{s}, map[string]secret.String{"a": s}, s}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%08.3f", "%U", "%p", "%b"} {
		for name, it := range map[string]any{"itself": s, "pointer": &s, "field": h, "field of a pointer": &h, "slice": h.keys, "map": h.byID, "public": public{s}} {
			got := fmt.Sprintf(verb, it)
			for _, leak := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value), fmt.Sprint([]byte(value))} {
				if strings.Contains(got, leak) {
					t.Errorf("%s of %s shows the secret: %s", verb, name, got)
				}
			}
		}
	}
	if got := fmt.Sprintf("%s|%v|%#v", s, s, s); got != "<redacted>|<redacted>|<redacted>" {
		t.Errorf("printed as %s", got)
	}
	if got := fmt.Sprintf("[%s]", secret.String{}); got != "[]" {
		t.Errorf("the empty secret prints as %s", got)
	}
}

func TestNoEncoderShowsIt(t *testing.T) {
	it := public{secret.New(value)}
	asJSON, err1 := json.Marshal(it)
	asXML, err2 := xml.Marshal(it)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "key", it.Key, "in", it, "hidden", holder{key: it.Key})
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", it.Key, "in", it, "hidden", holder{key: it.Key})
	all := string(asJSON) + string(asXML) + log.String() + fmt.Errorf("cannot use %v: %+v", it.Key, it).Error()
	if strings.Contains(all, value) {
		t.Errorf("the secret is in %s", all)
	}
	if want := `{"Key":"\u003credacted\u003e"}`; string(asJSON) != want {
		t.Errorf("JSON %s, want %s", asJSON, want)
	}
}

func TestReveal(t *testing.T) {
	s := secret.New(value)
	if s.Reveal() != value || !s.IsSet() || !s.Equal(value) || s.Equal(value+"x") || s.Equal("") {
		t.Error("a secret does not keep its value")
	}
	for _, empty := range []secret.String{{}, secret.New("")} {
		if empty.Reveal() != "" || empty.IsSet() || !empty.Equal("") || empty.Equal("x") || empty != (secret.String{}) {
			t.Errorf("%#v is not the empty secret", empty)
		}
	}
}
