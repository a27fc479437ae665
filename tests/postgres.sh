#!/bin/sh
# A PostgreSQL for tests: postgres.sh PORT makes one in a temporary folder, serves on that port of loopback,
# says "ready", and ends with everything it made when its standard input closes. Words on standard input are
# done and repeated: pause (every process is stopped), resume, kill (every process is killed), start, and
# `date OFFSET` (such as -3h: the date is so far from the true one), if a libfaketime is given as the second
# argument.
set -eu
port=$1
libfaketime=${2:-}
bin=$(ls -d /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin 2>/dev/null | sort -V | tail -1)
bin=${bin:-$(dirname "$(command -v postgres || echo /missing/postgres)")}
if [ ! -x "$bin/initdb" ]; then
    echo "PostgreSQL is missing: apt-get install postgresql" >&2
    exit 1
fi
folder=$(mktemp -d)
as=
if [ "$(id -u)" = 0 ]; then
    # It refuses to run as root.
    chown postgres "$folder"
    as="setpriv --reuid=postgres --regid=postgres --clear-groups --"
fi
server=
# Every process of it, the one that makes others first.
all() {
    echo "$server"
    for status in /proc/[0-9]*/status; do
        awk -v parent="$server" '/^Pid:/ { pid = $2 } /^PPid:/ && $2 == parent { print pid }' \
            "$status" 2>/dev/null || true
    done
}
signal_all() {
    for pid in $(all); do
        kill "-$1" "$pid" 2>/dev/null || true
    done
}
finish() {
    [ -z "$server" ] || kill -QUIT "$server" 2>/dev/null || true
    [ -z "$server" ] || kill -CONT "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"
$as "$bin/initdb" -D "$folder/data" -U undertone -A trust --no-sync --locale=C -E UTF8 >/dev/null
dated=
if [ -n "$libfaketime" ]; then
    echo +0 >"$folder/date"
    # Without the cache, which each backend would have of its own: a database has one clock.
    dated="env LD_PRELOAD=$libfaketime FAKETIME_TIMESTAMP_FILE=$folder/date FAKETIME_NO_CACHE=1
        FAKETIME_DONT_FAKE_MONOTONIC=1"
fi
serve() {
    # What is tested is not whether the machine loses power.
    # shellcheck disable=SC2086 # both are words, or none
    $as $dated "$bin/postgres" -D "$folder/data" -p "$port" -k "$folder" -c listen_addresses=127.0.0.1 \
        -c fsync=off -c max_connections=200 >>"$folder/log" 2>&1 &
    server=$!
}
# Whether it serves before it ends.
serves() {
    until "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; do
        kill -0 "$server" 2>/dev/null || return 1
        sleep 0.05
    done
}
serve
serves || { cat "$folder/log" >&2; exit 1; }
echo ready
# Standard input closes when whoever started this ends, in whatever way.
while read -r word; do
    case $word in
        pause) signal_all STOP ;;
        resume) signal_all CONT ;;
        kill)
            signal_all KILL
            wait "$server" 2>/dev/null || true
            ;;
        start)
            # What was killed may not have ended altogether yet.
            tries=0
            until serve && serves; do
                tries=$((tries + 1))
                [ "$tries" -lt 50 ] || { cat "$folder/log" >&2; exit 1; }
                sleep 0.1
            done
            ;;
        date\ *)
            echo "${word#date }" >"$folder/date.new"
            mv "$folder/date.new" "$folder/date"
            ;;
        *) echo "unknown: $word" >&2 ;;
    esac
    echo "$word"
done
