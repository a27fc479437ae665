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
trap 'kill $server $receiver 2>/dev/null; wait 2>/dev/null; rm -rf "$folder"' EXIT
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
YAML
# Raised and cleared about once a minute by each stream: some dozens of escalations a second in all, far more
# than people could act on.
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
    dwell: 1s
    clear_after: 0s
    cooldown: 20s
    update_every: 15s
    reason: "distress is at {{ distress | percent }}"
YAML
BENCH_SECRET=whsec_$(head -c 32 /dev/urandom | base64) "$undertone" serve --log warn \
    --escalation-store "${STORE:-sqlite:$folder/undertone.db}" --delivery "$folder/delivery.yaml" &
server=$!
until python3 -c 'import urllib.request; urllib.request.urlopen("http://127.0.0.1:9464/readyz")' 2>/dev/null; do
    kill -0 $server
    sleep 0.2
done
"$undertone" bench --streams "$streams" --seconds "$seconds" --policy-file "$folder/policy.yaml"
kill "$receiver"
wait "$receiver" 2>/dev/null || true
cat "$folder/report"
