#!/bin/sh
# Installs what is missing of the named needs from Debian's packages, and
# nothing else:  scripts/deps.sh cc s6 mmdebstrap chromium shellcheck docker
set -eu

# packages prints what must be installed for one need: nothing if it is there.
packages() {
	case $1 in
	cc) # the race detector links with cgo
		if ! echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1; then echo gcc libc6-dev; fi ;;
	s6)
		command -v s6-svscan >/dev/null || echo s6
		command -v execlineb >/dev/null || echo execline ;;
	promtool)
		command -v promtool >/dev/null || echo prometheus ;;
	systemd-analyze)
		command -v systemd-analyze >/dev/null || echo systemd ;;
	ngircd) # outside the PATH of users
		[ -x /usr/sbin/ngircd ] || echo ngircd ;;
	docker)
		command -v docker >/dev/null || echo docker.io ;;
	*)
		command -v "$1" >/dev/null || echo "$1" ;;
	esac
}

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing=
for need in "$@"; do
	for package in $(packages "$need"); do missing="$missing $package"; done
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "deps: please install:$missing (this machine has no apt-get)" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
	echo "deps: please install as root: apt-get install$missing" >&2
	exit 1
fi
echo "deps: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
if ! { as_root apt-get update && as_root apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "deps: cannot install$missing; the reason stands above" >&2
	exit 1
fi
# Tests start servers of their own; the package starts one for the whole network.
case $missing in
*ngircd*) as_root systemctl disable --now ngircd >/dev/null 2>&1 || true ;;
esac
