package config

import (
	"strconv"
	"strings"
)

// webURL says whether text is an http or https URL with a host, and whether a
// user stands in it. It is as strict as net/url, which what runs early cannot wait
// for (docs/decisions/0013-early-entries.md).
func webURL(text string) (user, ok bool) {
	scheme, rest, _ := strings.Cut(text, "://")
	if s := strings.ToLower(scheme); s != "http" && s != "https" {
		return false, false
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	host := authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, host = true, authority[i+1:]
		if !only(authority[:i], "-._~!$&'()*+,;=:%") {
			return user, false
		}
	}
	return user, validHost(host) && validEscapes(authority+path)
}

// validHost is a name or an address in brackets, and perhaps a port.
func validHost(host string) bool {
	if address, isAddress := strings.CutPrefix(host, "["); isAddress {
		address, port, found := strings.Cut(address, "]")
		return found && strings.Contains(address, ":") && only(address, ":.") && (port == "" || validPort(port))
	}
	name, port := host, ""
	if i := strings.IndexByte(host, ':'); i >= 0 {
		name, port = host[:i], host[i:]
	}
	return name != "" && only(name, "-._~") && (port == "" || validPort(port))
}

func validPort(port string) bool {
	digits, ok := strings.CutPrefix(port, ":")
	_, err := strconv.ParseUint(digits, 10, 16)
	return ok && (digits == "" || err == nil)
}

// validEscapes refuses control characters, spaces and a % that escapes nothing.
func validEscapes(text string) bool {
	for i, c := range []byte(text) {
		if c <= ' ' || c == 0x7f || c == '%' && (i+2 >= len(text) || !isHex(text[i+1]) || !isHex(text[i+2])) {
			return false
		}
	}
	return true
}

func isHex(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }

// only says whether text is made of letters, digits and what marks has.
func only(text, marks string) bool {
	for _, c := range []byte(text) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte(marks, c) < 0 {
			return false
		}
	}
	return true
}
