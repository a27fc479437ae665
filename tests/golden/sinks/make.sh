#!/bin/sh
# Writes the requests that the sinks of delivery.yaml make for a sample occurrence. What changes here
# changes for every receiver. Usage: make.sh UNDERTONE_BINARY
set -eu
binary=$(realpath "$1")
cd "$(dirname "$0")"
# Known to the tests; the first is the specification's own example.
export GOLDEN_WHSEC=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
export GOLDEN_TOKEN=a-token-that-nobody-may-see
for name in webhook-raised structured-raised binary-raised fhir-raised fhir-acknowledged \
    fhir-cleared pagerduty-raised pagerduty-cleared nats-raised; do
    "$binary" delivery sample delivery.yaml --sink "${name%-*}" --event "${name##*-}" > "$name.txt"
done
