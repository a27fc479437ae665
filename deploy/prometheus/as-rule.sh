#!/bin/sh
# The alerts as a PrometheusRule, for the Prometheus operator:
#   sh deploy/prometheus/as-rule.sh | kubectl -n undertone apply -f -
set -eu
cat <<'HEAD'
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: undertone
  labels:
    app.kubernetes.io/name: undertone
spec:
HEAD
# As deep as `spec` wants them; blank lines stay blank.
sed 's/^\(.\)/  \1/' "$(dirname "$0")/alerts.yaml"
