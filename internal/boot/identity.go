package boot

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/unix"
)

// DefaultID is the uid and gid of the services when root starts the container
// and neither the environment nor the volume names another.
const DefaultID = 10000

// identity is who the tree runs as.
type identity struct {
	uid, gid int
	groups   []int
	drop     bool   // we are root and become uid
	notice   string // one line worth saying, "" for none
}

// whoAmI decides the identity from the environment and the owner of the data
// directory (-1, -1 when there is none yet).
func whoAmI(env environment, uid, gid int, groups []int, ownerUID, ownerGID int, home string) (identity, error) {
	if uid != 0 {
		return identity{uid: uid, gid: gid, groups: groups}, nil
	}
	id := identity{uid: DefaultID, gid: DefaultID, drop: true}
	wantUID, uidVar, err := env.id("HERMES_UID", "PUID")
	if err != nil {
		return id, err
	}
	wantGID, _, err := env.id("HERMES_GID", "PGID")
	if err != nil {
		return id, err
	}
	switch {
	case wantUID > 0:
		id.uid = wantUID
	case ownerUID > 0 && ownerUID != DefaultID:
		id.uid = ownerUID
		if ownerGID > 0 {
			id.gid = ownerGID
		}
		id.notice = fmt.Sprintf("hermes: %s belongs to uid %d: the services run as that user; set HERMES_UID to choose another", home, ownerUID)
	}
	if wantGID > 0 {
		id.gid = wantGID
	}
	// A fresh volume has the image's owner and belongs to nobody yet.
	fresh := ownerUID == DefaultID && isEmptyDir(home)
	if uidVar != "" && ownerUID > 0 && ownerUID != wantUID && !fresh {
		return id, exitcode.With(exitcode.Config, fmt.Errorf(
			"%s belongs to uid %d, but %s is %d: run the container with %s, or give the directory to %d",
			home, ownerUID, uidVar, wantUID, asOwner(ownerUID, ownerGID), wantUID))
	}
	id.groups = union(groups, 0)
	return id, nil
}

// asOwner is how a container is started as a volume's owner. Group 0 every
// service has anyway, so it is not named.
func asOwner(uid, gid int) string {
	if gid <= 0 {
		return fmt.Sprintf("-e PUID=%d", uid)
	}
	return fmt.Sprintf("-e PUID=%d -e PGID=%d", uid, gid)
}

// id reads one of two names of an id: 0 and "" when neither is set.
func (e environment) id(names ...string) (int, string, error) {
	for _, name := range names {
		text, ok := e.get(name)
		if !ok || text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 || int64(n) >= 1<<32-1 {
			return 0, name, exitcode.With(exitcode.Config, fmt.Errorf(
				"%s is %q: give a numeric id from 1 to 4294967294; services never run as root", name, text))
		}
		return n, name, nil
	}
	return 0, "", nil
}

// giveStreams hands fds 0 to 2 to the user where they are pipes, sockets or
// terminals: else /dev/stderr cannot be opened by name after the drop.
func (id identity) giveStreams() {
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFIFO || kind == unix.S_IFSOCK || kind == unix.S_IFCHR && unix.IsTerminal(fd) {
			_ = unix.Fchown(fd, id.uid, id.gid) // information only: what was opened already stays open
		}
	}
}

func union(groups []int, g int) []int {
	if slices.Contains(groups, g) {
		return groups
	}
	return append(slices.Clone(groups), g)
}

func isEmptyDir(path string) bool {
	entries, err := os.ReadDir(path)
	return err == nil && len(entries) == 0
}

// ServiceUser is who services run as when their supervisor is root and not
// ours: HERMES_UID and HERMES_GID (PUID, PGID), DefaultID without them.
func ServiceUser(environ []string) (uid, gid int, err error) {
	env := environment(environ)
	if uid, _, err = env.id("HERMES_UID", "PUID"); err != nil {
		return 0, 0, err
	}
	if gid, _, err = env.id("HERMES_GID", "PGID"); err != nil {
		return 0, 0, err
	}
	if uid == 0 {
		uid = DefaultID
	}
	if gid == 0 {
		gid = DefaultID
	}
	return uid, gid, nil
}
