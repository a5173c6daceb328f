#!/bin/sh
# Starts Hermes in Docker, waits until it serves, says hello to it, and tells
# how to look at it and stop it:  scripts/run.sh hermes:dev
set -eu
cd "$(dirname "$0")/.."
image=$1
env_file=.run/env
api=127.0.0.1:8642
dashboard=127.0.0.1:9119
wait_seconds=60

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

fail() {
	echo "run: $*" >&2
	exit 1
}

# Written once, so that the keys survive a second make run; a half-written
# file never takes the place of a whole one.
make_keys() {
	[ ! -s "$env_file" ] || return 0
	umask 077
	mkdir -p .run
	{
		echo "API_SERVER_KEY=$(random)"
		echo "HERMES_DASHBOARD_USERNAME=admin"
		echo "HERMES_DASHBOARD_PASSWORD=$(random)"
	} >"$env_file.new"
	mv "$env_file.new" "$env_file"
}

start() {
	docker stop hermes >/dev/null 2>&1 || true # an earlier one may be in the middle of an answer
	docker rm -f hermes >/dev/null 2>&1 || true
	if ! problem=$(docker run -d --name hermes \
		-p "$api:8642" -p "$dashboard:9119" --env-file "$env_file" \
		-e API_SERVER_HOST=0.0.0.0 \
		-e HERMES_DASHBOARD=1 -e HERMES_DASHBOARD_HOST=0.0.0.0 \
		-v hermes-data:/opt/data "$image" gateway run 2>&1 >/dev/null); then
		docker rm -f hermes >/dev/null 2>&1 || true
		case $problem in
		*"already allocated"* | *"address already in use"*)
			fail "$api or $dashboard is taken by another program: stop it, then run this again" ;;
		*) fail "cannot start the container: $problem" ;;
		esac
	fi
}

wait_ready() {
	tries=0
	until why=$(docker exec hermes hermes healthcheck --ready 2>&1); do
		tries=$((tries + 1))
		running=$(docker inspect -f '{{.State.Running}}' hermes 2>/dev/null || echo false)
		if [ "$running" != true ] || [ $tries -ge $wait_seconds ]; then
			docker logs --tail 20 hermes >&2 || true
			fail "not ready: $why (its last log lines stand above; all of them: docker logs hermes)"
		fi
		sleep 1
	done
}

make_keys
start
wait_ready
message="Hello Hermes, are you there?"
echo "you:    $message"
reply=$(docker exec hermes hermes chat "$message") || fail "it is ready but did not answer; see: docker logs hermes"
echo "hermes: $reply"
cat <<END

Hermes runs, supervised, in the container "hermes".
  API        http://$api/v1 (OpenAI's; the key is API_SERVER_KEY in $env_file)
  dashboard  http://$dashboard (user and password are in $env_file)
  talk       docker exec -it hermes hermes chat
  state      docker exec hermes hermes gateway status --all
  logs       docker logs -f hermes
  stop       make stop (the data stays in the volume hermes-data)
END
