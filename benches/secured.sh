#!/bin/sh
# What TLS and identity cost: the same load against a server without either, with TLS, and with TLS and a token for
# every stream, in turn, each started afresh; before them a bare tonic server (benches/echo.rs) that takes the same
# messages without TLS and does nothing with them. Prints the server's CPU time per second of audio, latencies, and memory.
#
#   benches/secured.sh [STREAMS] [CONNECTIONS] [CHUNK_MS] [SECONDS] [ROUNDS]
#
# Needs a release build (`cargo build --release`), openssl, and for the bare server `cargo bench --bench echo --no-run`.
set -eu
cd "$(dirname "$0")/.."
streams=${1:-1000}
connections=${2:-1000}
chunk_ms=${3:-100}
seconds=${4:-20}
rounds=${5:-1}
undertone=${UNDERTONE:-target/release/undertone}
echo_server=${ECHO:-$(ls -t target/release/deps/echo-* 2>/dev/null | grep -v '\.d$' | head -1)}
grpc=127.0.0.1:${GRPC_PORT:-50971}
http=127.0.0.1:${HTTP_PORT:-9971}
# Every connection is a file on both sides.
ulimit -n $((connections + 1024)) 2>/dev/null || true

if [ ! -x "$undertone" ]; then
    echo "There is no $undertone: cargo build --release" >&2
    exit 1
fi
command -v openssl >/dev/null || { echo "openssl is missing: apt-get install openssl" >&2; exit 1; }
work=$(mktemp -d)
server=
stop() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
    server=
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

key() { openssl req "$@" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes 2>/dev/null; }
key -x509 -keyout "$work/ca.key" -out "$work/ca.pem" -days 1 -subj /CN=bench -addext basicConstraints=critical,CA:true
key -keyout "$work/server.key" -out "$work/server.csr" -subj /CN=localhost
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:false\n' >"$work/extensions"
openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 1 \
    -extfile "$work/extensions" -out "$work/server.pem" 2>/dev/null
"$undertone" identities token >"$work/token" 2>"$work/hash"
cat >"$work/identities.yaml" <<IDENTITIES
schema: undertone.identities/v1
identities:
  - name: bench
    tenant: bench
    roles: [stream]
    tokens: [{hash: '$(grep -o 'sha256:[0-9a-f]*' "$work/hash")'}]
IDENTITIES

# measure NAME SCHEME BENCH_ARGUMENTS...: loads what runs as $server.
measure() {
    name=$1 scheme=$2
    shift 2
    "$undertone" bench --target "$scheme://localhost:${grpc##*:}" --metrics "$scheme://localhost:${http##*:}/metrics" \
        --streams "$streams" --connections "$connections" --chunk-ms "$chunk_ms" --seconds "$seconds" --format json \
        "$@" >"$work/report.json"
    python3 - "$name" "$work/report.json" <<'PYTHON'
import json, sys
name, report = sys.argv[1], json.load(open(sys.argv[2]))
latency = report["latency_ms"] or {}
per_stream = report["server_bytes_per_stream"]
print(f"{name:18} {report['server_cpu_ms_per_audio_second']:.3f} ms CPU per audio second, p50 {latency.get('p50', 0):.1f} "
      f"p99 {latency.get('p99', 0):.1f} max {latency.get('max', 0):.1f} ms, "
      f"{'' if not per_stream else f'{per_stream / 1024:.0f} KiB per stream, '}generator {report['generator_cpu_ms_per_audio_second']:.3f} ms, "
      f"{report['missed_pace']} of {report['chunks']} chunks late, {report['errors']} errors", flush=True)
PYTHON
    stop
}

# serve ARGUMENTS...: a fresh server, which answers before this returns.
serve() {
    "$undertone" serve --grpc-address "$grpc" --http-address "$http" --log error --max-load 0 --escalation-store "" "$@" &
    server=$!
    python3 - "${http##*:}" <<'PYTHON'
import socket, sys, time
for _ in range(100):
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=1).close()
        sys.exit()
    except OSError:
        time.sleep(0.1)
sys.exit("the server does not come up")
PYTHON
}

for _ in $(seq "$rounds"); do
    if [ -n "$echo_server" ] && [ -x "$echo_server" ]; then
        "$echo_server" "$grpc" "$http" &
        server=$!
        sleep 1
        measure "bare tonic" http
    fi
    serve
    measure "plain" http
    serve --tls-certificate "$work/server.pem" --tls-key "$work/server.key"
    measure "TLS" https --ca "$work/ca.pem"
    serve --tls-certificate "$work/server.pem" --tls-key "$work/server.key" --identities "$work/identities.yaml"
    measure "TLS and identity" https --ca "$work/ca.pem" --token-file "$work/token"
done
