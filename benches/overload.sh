#!/bin/sh
# What overload does to those who are served: a server and two generators on this machine. First LIVE streams
# alone; then the same, and three times as many more that want in. Prints both, and who was refused, by which
# code and how quickly. With `off` as the third argument the server refuses nobody for load, to see the difference.
#
#   benches/overload.sh [LIVE] [SECONDS] [off]
set -eu
cd "$(dirname "$0")/.."
live=${1:-600}
seconds=${2:-20}
undertone=${UNDERTONE_BIN:-target/release/undertone}
grpc=127.0.0.1:${GRPC_PORT:-50051}
http=127.0.0.1:${HTTP_PORT:-9464}
export http
folder=$(mktemp -d)
finish() {
    for process in $herd $generator $server; do
        kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 1' INT TERM
server= generator= herd=
unlimited=
[ "${3:-}" != off ] || unlimited="--max-load 0 --max-engine-lag 0s --max-worker-delay 0s"

serve() {
    # shellcheck disable=SC2086
    "$undertone" serve --log warn --grpc-address "$grpc" --http-address "$http" --escalation-store "" --max-streams 100000 $unlimited &
    server=$!
    until python3 -c 'import os, urllib.request; urllib.request.urlopen("http://" + os.environ["http"] + "/readyz")' 2>/dev/null; do
        kill -0 $server
        sleep 0.2
    done
}

serve
"$undertone" bench --target "$grpc" --metrics "http://$http/metrics" --streams "$live" --seconds "$seconds" --format json \
    >"$folder/alone" 2>"$folder/errors" || true
kill $server && wait $server || true

serve
# The live ones are measured for as long as the herd starts, settles and is measured.
herd_starts=$((live * 3 / 250))
"$undertone" bench --target "$grpc" --metrics "http://$http/metrics" --streams "$live" \
    --seconds "$((seconds + herd_starts + 4))" --format json >"$folder/live" 2>>"$folder/errors" &
generator=$!
sleep $((live / 250 + 3))
"$undertone" bench --target "$grpc" --metrics none --streams "$((live * 3))" --seconds "$seconds" --format json \
    >"$folder/herd" 2>>"$folder/errors" &
herd=$!
wait $herd || true
wait $generator || true
herd= generator=
python3 - "$folder" <<'PYTHON'
import json, os, pathlib, sys, urllib.request

folder = pathlib.Path(sys.argv[1])
alone, live, herd = (json.loads((folder / name).read_text()) for name in ("alone", "live", "herd"))


def latency(report, key="latency_ms"):
    found = report[key]
    return "none" if found is None else ", ".join(f"{name} {found[name]:.1f}" for name in ("p50", "p99", "max")) + " ms"


print(f"live, alone           {alone['streams']} streams: {latency(alone)}; {alone['errors']} errors")
print(f"live, under overload  {live['streams']} streams: {latency(live)}; {live['errors']} errors {live['error_reasons']}")
admitted = herd["streams"] - herd["errors"]
print(f"herd, admitted        {admitted} of {herd['streams']} streams: {latency(herd)}")
print(f"herd, refused         {herd['error_reasons']}: {latency(herd, 'refused_ms')}")
page = urllib.request.urlopen("http://" + os.environ["http"] + "/metrics").read().decode()
print(*(line for line in page.splitlines() if line.startswith("undertone_streams_refused_total")), sep="\n")
PYTHON
cat "$folder/errors" >&2
