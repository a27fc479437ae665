#!/bin/sh
# Undertone's server against the usual way in Python (python_baseline.py), on the same audio in the same run.
#
#   benches/compare.sh [speech.wav]
#
# Without a file espeak-ng speaks one. Needs a release build, and a Python with what requirements.txt names:
#   python3 -m venv .venv-bench && .venv-bench/bin/pip install --requirement benches/requirements.txt
#   PYTHON=.venv-bench/bin/python benches/compare.sh
# Exit code 1 if Undertone is not at least ten times cheaper.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
undertone=${UNDERTONE:-$here/../target/release/undertone}
python=${PYTHON:-python3}
streams=${STREAMS:-200}
seconds=${SECONDS_MEASURED:-20}
grpc=127.0.0.1:${GRPC_PORT:-50951}
http=127.0.0.1:${HTTP_PORT:-9951}

if [ ! -x "$undertone" ]; then
    echo "There is no $undertone: cargo build --release" >&2
    exit 1
fi
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT INT TERM

speech=${1:-}
if [ -z "$speech" ]; then
    if ! command -v espeak-ng >/dev/null; then
        echo "Give a file with speech, or install espeak-ng: apt-get install espeak-ng" >&2
        exit 1
    fi
    speech=$work/speech.wav
    espeak-ng -w "$speech" "The morning round went well. I slept for six hours, and the pain is less than \
yesterday. But nobody has told me when the doctor comes, and I have asked three times now. Please, could \
somebody look at the drip? It has been beeping since breakfast, and my arm begins to hurt."
fi

echo "The usual way ..." >&2
"$python" "$here/python_baseline.py" "$speech" --format json >"$work/python.json"

echo "Undertone, $streams streams for $seconds s ..." >&2
"$undertone" serve --grpc-address "$grpc" --http-address "$http" --log warn --max-load 0 &
server=$!
"$python" - "http://$http/readyz" <<'PYTHON'
import sys, time, urllib.request
for _ in range(100):
    try:
        urllib.request.urlopen(sys.argv[1], timeout=1)
        sys.exit()
    except OSError:
        time.sleep(0.1)
sys.exit("the server does not come up")
PYTHON
"$undertone" bench --target "$grpc" --metrics "http://$http/metrics" --streams "$streams" \
    --seconds "$seconds" --audio "$speech" --format json >"$work/undertone.json"

"$python" - "$work/python.json" "$work/undertone.json" <<'PYTHON'
import json, sys
usual, ours = (json.load(open(path)) for path in sys.argv[1:])
usual_ms = usual["cpu_ms_per_audio_second"]
ours_ms = ours["server_cpu_ms_per_audio_second"]
ratio = usual_ms / ours_ms
print(f"librosa {usual['librosa']} + torch {usual['torch']}, 3 s window every 0.5 s, no network, 1 thread:")
print(f"    {usual_ms:.2f} ms CPU per second of audio")
print(f"undertone serve, {ours['streams']} streams over gRPC, estimates every {ours['interval_ms']} ms:")
print(f"    {ours_ms:.3f} ms CPU per second of audio, {100 * ours['speech_ratio']:.0f} % of it voice")
print(f"{ratio:.1f} times cheaper")
sys.exit(0 if ratio >= 10 else 1)
PYTHON
