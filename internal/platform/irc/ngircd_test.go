package irc_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/platform/irc"
	"github.com/hermesgw/hermes/internal/platform/irc/ngircdtest"
	"github.com/hermesgw/hermes/internal/platform/platformtest"
	"github.com/hermesgw/hermes/internal/secret"
)

// network is a real ngIRCd as the suite wants it, behind a wire that can be cut.
type network struct {
	t       *testing.T
	server  *ngircdtest.Server
	wire    *proxy
	adapter *irc.Adapter
	people  map[string]*ngircdtest.Person
}

func (n *network) Adapter() platform.Adapter { return n.adapter }

func (n *network) person(name string) *ngircdtest.Person {
	if n.people[name] == nil {
		n.people[name] = n.server.Join(n.t, name)
	}
	return n.people[name]
}

func (n *network) Say(person, text string) error {
	n.person(person).Say("hermes", text)
	return nil
}

func (n *network) Heard(person string) []string { return n.person(person).Told("hermes") }

func (n *network) Cut() error {
	n.wire.Cut()
	return nil
}

func (n *network) Mend() error {
	n.wire.Mend()
	return nil
}

func (n *network) Nowhere() string { return "nobody" }

func (n *network) Secrets() []string { return []string{"open-sesame"} }

func TestConformance(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", encrypted), func(t *testing.T) {
			platformtest.Run(t, func(t *testing.T) platformtest.Network {
				server := ngircdtest.Start(t, ngircdtest.Options{TLS: encrypted, Password: "open-sesame"})
				wire := newProxy(t, server.Addr)
				a, err := irc.New(irc.Options{
					Server: wire.addr, TLS: encrypted, CAFile: server.CAFile, Nick: "hermes",
					ServerPassword: secret.New("open-sesame"), Timing: brisk,
				})
				if err != nil {
					t.Fatal(err)
				}
				return &network{t: t, server: server, wire: wire, adapter: a, people: map[string]*ngircdtest.Person{}}
			})
		})
	}
}

func TestChannelsTakeWhatIsAddressedToUs(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	ann := server.Join(t, "ann", "#ops", "#Key")
	ann.Raw("MODE #Key +k sesame")
	b := ready(t, irc.Options{Server: server.Addr, Channels: []string{"#Ops", "#key sesame"}})
	for _, line := range []string{
		"good morning", "hermes: hello", "hermes, are you there?", "HERMES:  loud ", "hermes says nothing", "hermes_: not you",
		"hello hermes: no", "\x02hermes\x02: \x0304,12bold\x0f red", "\x01ACTION hermes: waves\x01",
	} {
		ann.Say("#ops", line)
	}
	ann.Say("#key", "hermes: secret")
	got := b.awaitTexts(t, "hello", "are you there?", "loud", "bold red", "secret")
	if m := got[0]; m.Chat != "#ops" || m.Direct || m.Sender.Name != "ann" || !strings.HasPrefix(m.Sender.ID, "ann!~ann@") {
		t.Errorf("a message of a channel: %+v", m)
	}
	b.say(t, got[0].Chat, "ann: yes")
	ann.Await(t, "the answer in the channel", from("hermes", "ann: yes"))
}

func TestEncryptedAndVerified(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{TLS: true})
	stranger := start(t, irc.Options{Server: server.Addr, TLS: true})
	stranger.awaitReport(t, "certificate")
	if strings.Contains(strings.Join(stranger.told(), "\n"), "ready") {
		t.Error("a server that nobody vouches for was trusted")
	}
	_ = ready(t, irc.Options{Server: server.Addr, TLS: true, CAFile: server.CAFile, Nick: "trusting"})
}

func TestWrongServerPassword(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{Password: "right"})
	wire := newProxy(t, server.Addr)
	slow := brisk
	slow.Refused, slow.RefusedMax = time.Hour, time.Hour
	b := start(t, irc.Options{Server: wire.addr, ServerPassword: secret.New("wrong-word"), Timing: slow})
	b.awaitReport(t, "degraded: ")
	if last := b.told()[len(b.told())-1]; !strings.Contains(last, "refused us") || strings.Contains(last, "wrong-word") {
		t.Errorf("told %q", last)
	}
	if n := wire.Dials(); n != 1 {
		t.Errorf("connected %d times after a refusal", n)
	}
}

func TestNickInUseIsRegained(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	holder := server.Join(t, "hermes", "#ops")
	b := start(t, irc.Options{Server: server.Addr, Channels: []string{"#ops"}})
	b.awaitReport(t, "ready: as hermes_")
	ann := server.Join(t, "ann", "#ops")
	ann.Say("#ops", "hermes: somebody else")
	ann.Say("#ops", "hermes_: you")
	ann.Say("hermes_", "directly")
	b.awaitTexts(t, "you", "directly")
	if b.Account() != "irc/hermes@"+server.Addr {
		t.Errorf("the account is %s", b.Account())
	}
	holder.Leave()
	ann.Await(t, "the nick regained", func(m ircmsg.Message) bool { return m.Command == "NICK" && m.Params[0] == "hermes" })
	ann.Say("#ops", "hermes: back")
	ann.Say("#ops", "hermes_: nobody")
	ann.Say("hermes", "end")
	b.awaitTexts(t, "you", "directly", "back", "end")
	if last := b.told()[len(b.told())-1]; last != "ready: " {
		t.Errorf("told %q", last)
	}
}

// A server that penalises those who send fast, and closes on those who go on.
func TestManyLongAnswersArriveInOrder(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{Penalties: true})
	wire := newProxy(t, server.Addr)
	pace := brisk
	pace.Line, pace.Confirm, pace.Ping = 20*time.Millisecond, patience, patience
	b := ready(t, irc.Options{Server: wire.addr, Timing: pace})
	ann := server.Join(t, "ann")
	var want strings.Builder
	for i := range 6 {
		text := fmt.Sprintf("%d ", i) + strings.Repeat(fmt.Sprintf("word%d äöü ", i), 100)[:1100]
		text = strings.ToValidUTF8(text, "")
		want.WriteString(text + " ")
		b.say(t, "ann", text)
	}
	b.await(t, "all of it", func() bool { return len(words(strings.Join(ann.Told("hermes"), " "))) >= len(words(want.String())) })
	if got := words(strings.Join(ann.Told("hermes"), " ")); !slices.Equal(got, words(want.String())) {
		t.Errorf("heard %d words, want %d, or another order", len(got), len(words(want.String())))
	}
	if wire.Dials() != 1 {
		t.Errorf("connected %d times: the server closed", wire.Dials())
	}
}

func words(text string) []string { return strings.Fields(text) }

// The server cuts lines off that are too long with our source before them. So
// the room is computed from it: a byte more is lost, as the test shows.
func TestLinesFillTheRoomAndNoMore(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	ann := server.Join(t, "ann", "#ops")
	b := ready(t, irc.Options{Server: server.Addr, User: "averylong", Channels: []string{"#ops"}})
	text := strings.Repeat("0123456789", 110)
	b.say(t, "ann", text)
	b.say(t, "ann", "end")
	ann.Await(t, "the end", from("hermes", "end"))
	told := ann.Told("hermes")
	if got := strings.Join(told[:len(told)-1], ""); got != text {
		t.Fatalf("heard %d bytes, want %d", len(got), len(text))
	}
	i := slices.IndexFunc(ann.Heard(), func(m ircmsg.Message) bool { return m.Command == "PRIVMSG" })
	first := ann.Heard()[i]
	if line, err := first.Line(); err != nil || len(line) < 505 || len(line) > 512 {
		t.Errorf("the line was relayed with %d bytes, want nearly 512: %v", len(line), err)
	}
	ann.Raw("PRIVMSG hermes :" + strings.Repeat("x", 400))
	b.awaitTexts(t, strings.Repeat("x", 400))
}

func TestForeignBytes(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	b := ready(t, irc.Options{Server: server.Addr})
	ann := server.Join(t, "ann")
	ann.Say("hermes", "caf\xe9 \x1b[31mred\x07")
	ann.Say("hermes", "\x01VERSION\x01")
	ann.Say("hermes", "\x01PING 12\xff34\x01")
	ann.Say("hermes", "\x01DCC SEND x 1 2 3\x01")
	ann.Raw("NOTICE hermes :\x01VERSION nothing\x01")
	ann.Raw("NOTICE hermes :hello")
	ann.Say("hermes", "\x01ACTION waves\x01")
	b.awaitTexts(t, "caf\uFFFD [31mred", "waves")
	notice := func(text string) func(ircmsg.Message) bool {
		return func(m ircmsg.Message) bool {
			return m.Command == "NOTICE" && m.Nick() == "hermes" && strings.Contains(m.Params[1], text)
		}
	}
	ann.Await(t, "the version", notice("\x01VERSION Hermes\x01"))
	ann.Await(t, "the pong", notice("\x01PING 12"))
	b.say(t, "ann", "end")
	ann.Await(t, "the end", from("hermes", "end"))
	if n := len(ann.Told("hermes")); n != 1 {
		t.Errorf("heard %q", ann.Told("hermes"))
	}
}

func TestServerRestarts(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	b := ready(t, irc.Options{Server: server.Addr, Channels: []string{"#ops"}})
	server.Stop()
	b.awaitReport(t, "degraded: ")
	if _, err := b.trySay(t, "#ops", "void"); platform.FateOf(err) != platform.Retry {
		t.Errorf("sent without a server: %v", err)
	}
	server.Resume(t)
	b.awaitReport(t, "ready: ")
	ann := server.Join(t, "ann", "#ops")
	ann.Say("#ops", "hermes: back?")
	b.awaitTexts(t, "back?")
	b.say(t, "#ops", "back")
	ann.Await(t, "the answer", from("hermes", "back"))
}

// Alive but deaf: the connection stands, and nothing comes through.
func TestSilentCutIsFound(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	wire := newProxy(t, server.Addr)
	probing := brisk
	probing.Ping = 100 * time.Millisecond
	b := ready(t, irc.Options{Server: wire.addr, Timing: probing})
	ann := server.Join(t, "ann")
	b.say(t, "ann", "before")
	n := len(b.told())
	wire.Deafen()
	_, err := b.trySay(t, "ann", "into the silence")
	if platform.FateOf(err) != platform.Unknown {
		t.Errorf("sent into silence: %v", err)
	}
	b.awaitReportAfter(t, n, "degraded: "+wire.addr+" is silent")
	wire.Hear()
	b.awaitReport(t, "ready: ")
	b.await(t, "sending again", func() bool {
		_, err := b.trySay(t, "ann", "after")
		return err == nil
	})
	ann.Await(t, "what was sent after", func(m ircmsg.Message) bool { return m.Command == "PRIVMSG" && m.Params[1] == "after" })
}

// A quiet server that answers is no deaf one.
func TestSilenceIsAskedAbout(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	wire := newProxy(t, server.Addr)
	probing := brisk
	probing.Ping = 30 * time.Millisecond
	b := ready(t, irc.Options{Server: wire.addr, Timing: probing})
	n := len(b.told())
	quiet := time.Now().Add(10 * probing.Ping)
	b.await(t, "ten times the silence", func() bool { return time.Now().After(quiet) })
	if got := b.told()[n:]; len(got) > 0 || wire.Dials() != 1 {
		t.Errorf("told %q, connected %d times", got, wire.Dials())
	}
}

func TestKickedComesBack(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	ann := server.Join(t, "ann", "#ops")
	b := ready(t, irc.Options{Server: server.Addr, Channels: []string{"#ops"}})
	n := len(b.told())
	ann.Raw("KICK #ops hermes :enough")
	ann.Await(t, "the kick", command("KICK", "ann"))
	ann.Await(t, "coming back", command("JOIN", "hermes"))
	b.awaitReportAfter(t, n, "ready: ")
}

func TestKickIsReportedAndUndone(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	ann := server.Join(t, "ann", "#ops")
	patient := brisk
	patient.Rejoin, patient.RejoinMax = time.Hour, time.Hour
	b := ready(t, irc.Options{Server: server.Addr, Channels: []string{"#ops"}, Timing: patient})
	ann.Raw("MODE #ops +i")
	ann.Raw("KICK #ops hermes :enough")
	b.awaitReport(t, "degraded: not in #ops: kicked by ann: enough")
	if _, err := b.trySay(t, "#ops", "still here?"); platform.FateOf(err) != platform.Retry {
		t.Errorf("sent to a channel that threw us out: %v", err)
	}
	b.say(t, "ann", "let me in")
	ann.Raw("INVITE hermes #elsewhere")
	ann.Raw("INVITE hermes #ops")
	b.awaitReport(t, "ready: ")
	b.say(t, "#ops", "thanks")
	ann.Await(t, "the thanks", from("hermes", "thanks"))
}

func TestChannelThatRefusesIsReported(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	ann := server.Join(t, "ann", "#ops")
	ann.Raw("MODE #ops +k right")
	b := start(t, irc.Options{Server: server.Addr, Channels: []string{"#ops wrong"}})
	b.awaitReport(t, "degraded: not in #ops: ")
	ann.Say("hermes", "directly")
	b.awaitTexts(t, "directly") // the rest works
	ann.Raw("MODE #ops -k right")
	b.awaitReport(t, "ready: ")
}

func TestChannelThatForbidsToSpeak(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	ann := server.Join(t, "ann", "#ops")
	b := ready(t, irc.Options{Server: server.Addr, Channels: []string{"#ops"}})
	ann.Raw("MODE #ops +m")
	ann.Await(t, "the mode", command("MODE", "ann"))
	_, err := b.trySay(t, "#ops", "one\ntwo\nthree")
	if platform.FateOf(err) != platform.Never {
		t.Errorf("spoke where it is forbidden: %v", err)
	}
}

// While the gateway takes nothing, pings are answered for as long as there is
// room, then reading stops; nothing is lost.
func TestBusyGatewayLosesNothing(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	probing := brisk
	probing.Ping = 50 * time.Millisecond
	wire := newProxy(t, server.Addr)
	b := ready(t, irc.Options{Server: wire.addr, Timing: probing})
	release := b.block()
	ann := server.Join(t, "ann")
	var want []string
	for i := range 150 { // more than the backlog
		want = append(want, fmt.Sprintf("message %d", i))
		ann.Say("hermes", want[i])
	}
	ann.Say("ann", "the end")
	ann.Await(t, "the server has it all", from("ann", "the end"))
	quiet := time.Now().Add(10 * probing.Ping)
	b.await(t, "more than the patience with a silent server", func() bool { return time.Now().After(quiet) })
	release()
	b.awaitTexts(t, want...)
	if wire.Dials() != 1 {
		t.Errorf("connected %d times", wire.Dials())
	}
}

// What was read is handed over after the end was called.
func TestStopHandsOverWhatWasRead(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	b := ready(t, irc.Options{Server: server.Addr})
	release := b.block()
	ann := server.Join(t, "ann", "#ops")
	ann.Say("hermes", "one")
	ann.Say("hermes", "two")
	b.say(t, "ann", "after them") // so they are read
	b.cancel()
	release()
	b.stop(t)
	b.awaitTexts(t, "one", "two")
}

func TestTwoAdapters(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	one := ready(t, irc.Options{Server: server.Addr, Nick: "one", Channels: []string{"#ops"}})
	two := ready(t, irc.Options{Server: server.Addr, Nick: "two", Channels: []string{"#ops"}})
	ann := server.Join(t, "ann", "#ops")
	ann.Say("#ops", "one: a")
	ann.Say("#ops", "two: b")
	ann.Say("one", "c")
	ann.Say("two", "d")
	first := one.awaitTexts(t, "a", "c")
	second := two.awaitTexts(t, "b", "d")
	if first[0].Account == second[0].Account {
		t.Errorf("both are %s", first[0].Account)
	}
}
