// Package runmode decides what `hermes gateway run` becomes: the gateway
// itself, in the foreground, or a redirect to the slot that s6 supervises. It
// is one pure function over facts; it looks at nothing and starts nothing.
//
// The trade-off of a redirect: the container's main program becomes a
// heartbeat (`sleep infinity`), so the container outlives the gateway and its
// exit code is the heartbeat's, not the gateway's. Who needs the gateway's own
// exit code says --no-supervise or HERMES_GATEWAY_NO_SUPERVISE=1.
//
//	d := runmode.Decide(runmode.Facts{Tree: runmode.TreeOurs})
//	if d.Mode == runmode.Redirect { … }
package runmode

import "github.com/hermesgw/hermes/internal/config"

// Environment variables of the gates.
const (
	EnvNoSupervise = "HERMES_GATEWAY_NO_SUPERVISE"
	EnvSentinel    = "HERMES_S6_SUPERVISED_CHILD"
)

// Mode is what `gateway run` becomes.
type Mode string

// The two modes.
const (
	Foreground Mode = "foreground"
	Redirect   Mode = "redirect"
)

// Tree is the supervision tree that was found around this process.
type Tree int

// What may be found.
const (
	TreeNone    Tree = iota // no live s6-svscan anywhere we look
	TreeForeign             // a live one that is neither ours nor s6-overlay's: never touched
	TreeOurs                // live, and our boot left its mark
	TreeOverlay             // live, and /run/s6/basedir is there: an s6-overlay container
)

// Facts is all that the decision rests on.
type Facts struct {
	NoSuperviseFlag bool   // --no-supervise was given
	NoSuperviseEnv  string // value of HERMES_GATEWAY_NO_SUPERVISE, "" when unset
	Sentinel        string // value of HERMES_S6_SUPERVISED_CHILD, "" when unset
	InSlot          bool   // this process was started by a slot's entry
	Tree            Tree
	TreeRefusal     string // why a tree that is there cannot be used, "" when it can
}

// Reason says which fact decided.
type Reason string

// The reasons, in the order in which the gates are asked.
const (
	ReasonSentinel  Reason = "sentinel"   // a supervised child never redirects
	ReasonFlag      Reason = "flag"       // --no-supervise
	ReasonEnv       Reason = "env"        // HERMES_GATEWAY_NO_SUPERVISE
	ReasonNoTree    Reason = "no-tree"    // a host, or a container without s6
	ReasonForeign   Reason = "foreign"    // somebody else's s6
	ReasonUnusable  Reason = "unusable"   // s6 is there, but we may not use it
	ReasonSupervise Reason = "supervised" // redirect
)

// Decision is the answer.
type Decision struct {
	Mode   Mode
	Reason Reason
	Notice string // one line the user must read, "" when there is nothing to say
}

// Decide asks three gates in turn: is this the supervised child itself, did
// the user opt out, is there a tree that is ours to use. Only when all three
// are open does it redirect.
func Decide(f Facts) Decision {
	// Gate 1: the sentinel. Asked first, so that recursion is impossible.
	if f.Sentinel != "" {
		return Decision{Foreground, ReasonSentinel, sentinelNotice(f)}
	}
	// Gate 2: the opt-out.
	if f.NoSuperviseFlag {
		return Decision{Foreground, ReasonFlag, ""}
	}
	if config.Truthy(f.NoSuperviseEnv) {
		return Decision{Foreground, ReasonEnv, ""}
	}
	// Gate 3: the tree.
	return decideTree(f)
}

func decideTree(f Facts) Decision {
	if f.Tree == TreeNone {
		return Decision{Foreground, ReasonNoTree, ""}
	}
	if f.Tree == TreeForeign {
		return Decision{Foreground, ReasonForeign, "hermes: the s6 found here was not set up by hermes or s6-overlay and is left alone: the gateway runs in the foreground, unsupervised"}
	}
	if f.TreeRefusal != "" {
		return Decision{Foreground, ReasonUnusable, "hermes: s6 is here but cannot be used (" + f.TreeRefusal + "): the gateway runs in the foreground, unsupervised"}
	}
	return Decision{Redirect, ReasonSupervise, Breadcrumb}
}

// Breadcrumb is the one line on stderr that says what the redirect changed.
const Breadcrumb = "hermes: gateway is supervised by s6: restarted when it crashes; the container outlives it and its exit code is not the gateway's. Foreground instead: --no-supervise or " + EnvNoSupervise + "=1"

// sentinelNotice is silent for the slot's own child and says one line to who
// set the variable by hand.
func sentinelNotice(f Facts) string {
	if f.InSlot {
		return ""
	}
	return "hermes: " + EnvSentinel + " is set outside a slot: the gateway runs in the foreground, unsupervised; unset it to have it supervised"
}
