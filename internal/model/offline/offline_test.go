package offline_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/model/modeltest"
	"github.com/hermesgw/hermes/internal/model/offline"
)

func TestConformance(t *testing.T) {
	modeltest.Run(t, func(_ *testing.T, delay time.Duration) chat.Model { return offline.New(offline.Options{Delay: delay}) })
}

func TestSaysWhatItIsAndCountsTurns(t *testing.T) {
	reply, err := offline.New(offline.Options{}).Complete(t.Context(), chat.Request{Messages: []chat.Message{
		{Role: chat.User, Text: "one"}, {Role: chat.Assistant, Text: "…"}, {Role: chat.User, Text: "two words"},
	}}, func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"offline", "HERMES_MODEL_BASE_URL", "Turn 2", "two words"} {
		if !strings.Contains(reply.Text, want) {
			t.Errorf("%q lacks %q", reply.Text, want)
		}
	}
}
