#!/bin/sh
# From a policy's decision to the webhook's arrival, with many streams live: a server, a receiver and the
# load generator on this machine. Prints the generator's report, then the receiver's.
#
#   benches/escalations.sh [STREAMS] [SECONDS]
set -eu
cd "$(dirname "$0")/.."
streams=${1:-1000}
seconds=${2:-60}
undertone=${UNDERTONE_BIN:-target/release/undertone}
folder=$(mktemp -d)
finish() {
    # The server first, or it would find the receiver gone.
    for process in $server $receiver; do
        kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap finish EXIT
server= receiver=

python3 benches/receiver.py "$folder/report" "$folder/port" &
receiver=$!
while [ ! -s "$folder/port" ]; do sleep 0.1; done

cat >"$folder/delivery.yaml" <<YAML
schema: undertone.delivery/v1
sinks:
  - name: receiver
    webhook:
      url: http://127.0.0.1:$(cat "$folder/port")/
      secrets: [{env: BENCH_SECRET}]
      allow_private: true
    concurrency: ${CONCURRENCY:-8}
YAML
# One stream in twenty has a policy by which something happens to it every second: with 1,000 streams 50 events
# a second in all, far more than people could act on, spread as evenly as the streams' starts.
cat >"$folder/policy.yaml" <<'YAML'
schema: undertone.policy/v1
name: bench
version: "1"
description: Fires often.
budget: 1000
rules:
  - name: often
    title: Often
    severity: low
    when: {level: {of: distress, over: 4s, on: 0.02, off: 0.01, min_speech: 1s}}
    clear_after: 0s
    cooldown: 1s
    update_every: 1s
    reason: "distress is at {{ distress | percent }}"
YAML
BENCH_SECRET=whsec_$(head -c 32 /dev/urandom | base64) "$undertone" serve --log warn --max-load 0 \
    --escalation-store "${STORE:-sqlite:$folder/undertone.db}" --delivery "$folder/delivery.yaml" &
server=$!
until python3 -c 'import urllib.request; urllib.request.urlopen("http://127.0.0.1:9464/readyz")' 2>/dev/null; do
    kill -0 $server
    sleep 0.2
done
watched=$((streams / 20))
"$undertone" bench --streams "$watched" --seconds "$((seconds + 10))" --metrics none \
    --policy-file "$folder/policy.yaml" >"$folder/watched" 2>&1 &
generator=$!
"$undertone" bench --streams "$((streams - watched))" --seconds "$seconds"
wait "$generator"
grep -E "^(latency|errors)" "$folder/watched"
python3 - <<'PYTHON'
import urllib.request
for line in urllib.request.urlopen("http://127.0.0.1:9464/metrics").read().decode().splitlines():
    if line.startswith(("undertone_store_commit_seconds_", "undertone_delivery_departure_seconds_")):
        print(line)
PYTHON
kill "$receiver"
wait "$receiver" 2>/dev/null || true
cat "$folder/report"
