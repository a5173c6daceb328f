#!/bin/sh
# Builds the image from bin/linux-ARCH/hermes:  scripts/image.sh hermes:dev amd64 VERSION REVISION
# Says one line when all is well, and everything when it is not.
set -eu
cd "$(dirname "$0")/.."
tag=$1 arch=$2 version=$3 revision=$4

if ! docker version >/dev/null 2>&1; then
	echo "image: no Docker daemon answers; start one (see: docker version)" >&2
	exit 1
fi
base=$(docker/base-image.sh)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! docker build -f docker/Dockerfile -t "$tag" \
	--build-arg "BASE_IMAGE=$base" --build-arg "TARGETARCH=$arch" \
	--build-arg "VERSION=$version" --build-arg "REVISION=$revision" . >"$log" 2>&1; then
	cat "$log" >&2
	echo "image: cannot build $tag; the reason stands above" >&2
	exit 1
fi
# The image that this one replaced, if nothing runs on it.
docker image prune -f --filter label=org.opencontainers.image.title=hermes >/dev/null
echo "image: $tag ($arch, on $base, $(docker image inspect -f '{{.Size}}' "$tag" | awk '{printf "%.0f MB", $1/1e6}'))"
