package doctor

import (
	"strings"
	"testing"
	"time"
)

// The wall went an hour further than the time that really passed.
func TestAClockThatIsSetMeanwhile(t *testing.T) {
	if by := stepped(time.Hour+time.Second, time.Second); by != time.Hour {
		t.Errorf("the step is %s", by)
	}
	if by := stepped(time.Second, time.Second+time.Millisecond); by != 0 {
		t.Errorf("a drift of a millisecond is a step of %s", by)
	}
	e := &examiner{Options: Options{Now: time.Now}, began: time.Now()}
	if f := e.clock()[0]; f.Severity != OK || !strings.Contains(f.What, "Z") {
		t.Errorf("%+v", f)
	}
}
