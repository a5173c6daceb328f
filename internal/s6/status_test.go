package s6_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/s6"
	"pgregory.net/rapid"
)

// golden are files written by s6 2.11.3.2, with what s6-svstat said of them.
var golden = []struct {
	state  string
	hex    string
	want   s6.Status // without times
	code   int
	signal syscall.Signal
}{
	{
		state: "down file, never started",
		hex:   "400000006b0372b61f37e5c2400000006b0372b61f37e5c20000000000000000000008",
		want:  s6.Status{Ready: true},
	},
	{
		state: "run missing, wanted up",
		hex:   "400000006b0372b61f4e0da2400000006b0372b61f4e0da2000000000000000000000c",
		want:  s6.Status{Ready: true, WantUp: true},
	},
	{
		state: "exited 7, in the pause",
		hex:   "400000006b0372b7200a14eb400000006b0372b72055d14f000000000000000007000c",
		want:  s6.Status{Ready: true, WantUp: true, LastExit: 0x0700},
		code:  7,
	},
	{
		state: "finish running",
		hex:   "400000006b0372b61fa70f6a400000006b0372b61f80848c0000000000006836030006",
		want:  s6.Status{Finishing: true, WantUp: true, PID: 0x6836, LastExit: 0x0300},
		code:  3,
	},
	{
		state: "permanent failure",
		hex:   "400000006b0372b61fb56a74400000006b0372b61fe3a4e90000000000000000010008",
		want:  s6.Status{Ready: true, LastExit: 0x0100},
		code:  1,
	},
	{
		state: "up, not ready",
		hex:   "400000006b0372b61f877adf400000006b0372b61f1283720000000000006822000004",
		want:  s6.Status{Up: true, WantUp: true, PID: 26658},
	},
	{
		state: "up, ready",
		hex:   "400000006b0372b61f673ad0400000006b0372b61f73a131000000000000683000000c",
		want:  s6.Status{Up: true, Ready: true, WantUp: true, PID: 0x6830},
	},
	{
		state: "up, paused",
		hex:   "400000006b0372b61f9492d3400000006b0372b61f59fd43000000000000682f000005",
		want:  s6.Status{Up: true, Paused: true, WantUp: true, PID: 0x682f},
	},
	{
		state: "up, once or stop ignored",
		hex:   "400000006b0372b61fca1045400000006b0372b61f2c8aae0000000000006826000000",
		want:  s6.Status{Up: true, PID: 0x6826},
	},
	{
		state:  "told down, died of TERM",
		hex:    "400000006b03bb2411135a29400000006b03bb24111cd1840000000000000000000f08",
		want:   s6.Status{Ready: true, LastExit: 0x000f},
		code:   -1,
		signal: syscall.SIGTERM,
	},
	{
		state: "up in a group, form of s6 2.13",
		hex:   "400000006b0372b61f673ad0400000006b0372b61f73a13100000000000068300000000000006831" + "00000c",
		want:  s6.Status{Up: true, Ready: true, WantUp: true, PID: 0x6830, PGID: 0x6831},
	},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeStatusGolden(t *testing.T) {
	for _, g := range golden {
		t.Run(g.state, func(t *testing.T) {
			got, err := s6.DecodeStatus(unhex(t, g.hex))
			if err != nil {
				t.Fatal(err)
			}
			if got.Since.Year() != 2026 || got.ReadySince.Year() != 2026 {
				t.Errorf("times %s, %s; want 2026", got.Since, got.ReadySince)
			}
			if got.LastExit.Code() != g.code || got.LastExit.Signal() != g.signal {
				t.Errorf("last exit: code %d, signal %d; want %d, %d", got.LastExit.Code(), got.LastExit.Signal(), g.code, g.signal)
			}
			got.Since, got.ReadySince = time.Time{}, time.Time{}
			if !reflect.DeepEqual(got, g.want) {
				t.Errorf("got  %+v\nwant %+v", got, g.want)
			}
		})
	}
}

func TestDecodeStatusTime(t *testing.T) {
	got, err := s6.DecodeStatus(unhex(t, golden[0].hex))
	if want := time.Unix(1795388049, 0x1f37e5c2); err != nil || !got.Since.Equal(want) {
		t.Errorf("Since = %s, %v; want %s", got.Since, err, want.UTC())
	}
}

func TestDecodeStatusRefuses(t *testing.T) {
	valid := golden[0].hex
	for name, in := range map[string]string{
		"nothing":           "",
		"34 bytes":          valid[2:],
		"36 bytes":          valid + "00",
		"44 bytes":          valid + "000000000000000000",
		"label below 2^62":  "3fffffffffffffff" + valid[16:],
		"label from 2^63":   "8000000000000000" + valid[16:],
		"a whole second":    valid[:16] + "3b9aca00" + valid[24:],
		"ready label zero":  valid[:24] + "0000000000000000" + valid[40:],
		"pid from 2^31":     valid[:48] + "0000000080000000" + valid[64:],
		"pgid from 2^31":    valid[:64] + "8000000000000000" + valid[64:],
		"text of that size": hex.EncodeToString([]byte("this is not a status file of s6, no")),
	} {
		if s, err := s6.DecodeStatus(unhex(t, in)); err == nil {
			t.Errorf("%s: decoded as %+v", name, s)
		}
	}
}

func TestUnknownFlagsAreIgnored(t *testing.T) {
	b := unhex(t, golden[6].hex)
	want, _ := s6.DecodeStatus(b)
	b[34] |= 0xf0
	if got, err := s6.DecodeStatus(b); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

// encode is the inverse of DecodeStatus, in the longer form if group is set.
func encode(s s6.Status, group bool) []byte {
	b := appendTAI64N(appendTAI64N(nil, s.Since), s.ReadySince)
	b = binary.BigEndian.AppendUint64(b, uint64(s.PID))
	if group {
		b = binary.BigEndian.AppendUint64(b, uint64(s.PGID))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(s.LastExit))
	var flags byte
	for i, set := range []bool{s.Paused, s.Finishing, s.WantUp, s.Ready} {
		if set {
			flags |= 1 << i
		}
	}
	return append(b, flags)
}

func appendTAI64N(b []byte, t time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(t.Unix()+37)+1<<62)
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

func TestStatusRoundTrip(t *testing.T) {
	stamp := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(0, 1<<40).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
	})
	rapid.Check(t, func(t *rapid.T) {
		group := rapid.Bool().Draw(t, "group")
		want := s6.Status{
			Finishing:  rapid.Bool().Draw(t, "finishing"),
			Ready:      rapid.Bool().Draw(t, "ready"),
			Paused:     rapid.Bool().Draw(t, "paused"),
			WantUp:     rapid.Bool().Draw(t, "wantup"),
			PID:        rapid.IntRange(0, 1<<31-1).Draw(t, "pid"),
			Since:      stamp.Draw(t, "since"),
			ReadySince: stamp.Draw(t, "readysince"),
			LastExit:   s6.WaitStatus(rapid.Uint16().Draw(t, "exit")),
		}
		want.Up = want.PID != 0 && !want.Finishing
		if group {
			want.PGID = rapid.IntRange(0, 1<<31-1).Draw(t, "pgid")
		}
		got, err := s6.DecodeStatus(encode(want, group))
		if err != nil || got != want {
			t.Fatalf("got  %+v, %v\nwant %+v", got, err, want)
		}
	})
}

func FuzzDecodeStatus(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.hex))
	}
	f.Add([]byte{})
	f.Add(make([]byte, 35))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := s6.DecodeStatus(b)
		if err != nil {
			return
		}
		want := bytes.Clone(b)
		want[len(b)-1] &= 0x0f
		if got := encode(s, len(b) == 43); !bytes.Equal(got, want) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, s, got)
		}
		if s.Up && (s.PID == 0 || s.Finishing || s.Stopped()) {
			t.Errorf("contradiction: %+v", s)
		}
	})
}

const goldenTally = "400000006b0372b61f99534b0700400000006b0372b7200a14eb0700"

func TestDecodeDeathTallyGolden(t *testing.T) {
	got, err := s6.DecodeDeathTally(unhex(t, goldenTally))
	want := []s6.Death{
		{At: time.Unix(1795388049, 0x1f99534b).UTC(), Code: 7},
		{At: time.Unix(1795388050, 0x200a14eb).UTC(), Code: 7},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if got, err := s6.DecodeDeathTally(nil); err != nil || len(got) != 0 {
		t.Errorf("empty: %v, %v", got, err)
	}
}

func TestDecodeDeathTallyRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"13 bytes":    unhex(t, goldenTally)[:13],
		"15 bytes":    unhex(t, goldenTally)[:15],
		"zero times":  make([]byte, 14),
		"4097 deaths": bytes.Repeat(unhex(t, goldenTally)[:14], 4097),
	} {
		if got, err := s6.DecodeDeathTally(b); err == nil {
			t.Errorf("%s: decoded as %v", name, got)
		}
	}
}

func FuzzDecodeDeathTally(f *testing.F) {
	f.Add(unhex(f, goldenTally))
	f.Add(unhex(f, "400000006b0372b61f99534b8909"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		deaths, err := s6.DecodeDeathTally(b)
		if err != nil {
			return
		}
		var again []byte
		for _, d := range deaths {
			again = append(appendTAI64N(again, d.At), byte(d.Code), byte(d.Signal))
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x decodes to %v, which encodes to %x", b, deaths, again)
		}
	})
}
