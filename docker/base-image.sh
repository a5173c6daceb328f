#!/bin/sh
# Prints the name of the base image to build on, making one if it must.
#
# In this order: $BASE_IMAGE if set; debian:bookworm-slim if it is here; the
# equivalent made here earlier; debian:bookworm-slim from its registry; an
# equivalent made of Debian's own packages with mmdebstrap.
set -eu
cd "$(dirname "$0")/.."

official=debian:bookworm-slim
made=hermes-base:bookworm
pull_seconds=60 # without a registry a pull should fail, not hang

have() { docker image inspect "$1" >/dev/null 2>&1; }
say() { echo "base image: $*" >&2; }

# bootstrap writes the root file system of a minimal Debian to stdout: as
# debian:bookworm-slim has it, without documentation and translations.
bootstrap() {
	set -- mmdebstrap --quiet --variant=minbase \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
		bookworm -
	if [ "$(id -u)" = 0 ]; then
		"$@" --mode=root
	elif command -v sudo >/dev/null; then
		sudo "$@" --mode=root
	else
		"$@" # mmdebstrap finds out which unprivileged mode works here
	fi
}

make_image() {
	scripts/deps.sh mmdebstrap >&2
	tar=$(mktemp)
	trap 'rm -f "$tar"' EXIT
	# Not a pipe: a bootstrap that failed half-way must not become an image.
	bootstrap >"$tar"
	docker import -c 'CMD ["bash"]' \
		-c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
		"$tar" "$made" >/dev/null
}

if [ -n "${BASE_IMAGE:-}" ]; then
	echo "$BASE_IMAGE"
elif have "$official"; then
	echo "$official"
elif have "$made"; then
	echo "$made"
elif timeout "$pull_seconds" docker pull -q "$official" >/dev/null 2>&1; then
	echo "$official"
else
	say "$official cannot be pulled; making the equivalent $made from Debian's packages"
	make_image
	echo "$made"
fi
