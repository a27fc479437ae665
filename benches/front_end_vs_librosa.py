#!/usr/bin/env python3
"""Compares the CPU time of the front end with librosa's, on the same audio in the same run.

    python3 -m venv venv && venv/bin/pip install librosa==0.11.0
    venv/bin/python benches/front_end_vs_librosa.py

Both take the same minute of 16 kHz audio (speech and synthetic signals of tests/golden/mfcc.npz) on
one thread, in turns. librosa is given the whole minute in one call, which suits it; Undertone takes
chunks of 100 ms, as a stream is, and computes the causal reference besides. CPU time is user and
system time of the process; start-up is measured apart and left out of both.
"""

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

for pool in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{pool}_NUM_THREADS"] = "1"

import librosa  # noqa: E402
import numpy as np  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
RATE = 16_000
SECONDS = 60
# Many short rounds in turns: on a shared machine speed changes within seconds.
ROUNDS = 21
LIBROSA_PASSES = 2
OUR_PASSES = 20


def audio() -> np.ndarray:
    """One minute of the golden vectors' input."""
    golden = np.load(ROOT / "tests" / "golden" / "mfcc.npz")
    signals = [golden[key] for key in sorted(golden) if key.endswith(".samples")]
    return np.resize(np.concatenate(signals) / 32_768, SECONDS * RATE).astype(np.float32)


def bench_program() -> str:
    """Builds the bench and finds its program."""
    build = subprocess.run(
        ["cargo", "bench", "--bench", "front_end", "--no-run", "--message-format=json"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )
    messages = [json.loads(line) for line in build.stdout.splitlines() if line.startswith("{")]
    (program,) = [
        message["executable"]
        for message in messages
        if message.get("target", {}).get("name") == "front_end" and message.get("executable")
    ]
    return program


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def ours(program: str, passes: int, file: str) -> float:
    before = children_cpu()
    subprocess.run([program, "--repeat", str(passes), file], check=True, stdout=subprocess.DEVNULL)
    return children_cpu() - before


def librosas(y: np.ndarray) -> float:
    before = time.process_time()
    for _ in range(LIBROSA_PASSES):
        librosa.feature.mfcc(
            y=y, sr=RATE, n_fft=1024, hop_length=256, n_mels=128, n_mfcc=40, center=False
        )
    return time.process_time() - before


def main() -> None:
    y = audio()
    program = sys.argv[1] if len(sys.argv) > 1 else bench_program()
    librosas(y)  # Imports what it loads lazily, fills its caches.
    rounds = []
    with tempfile.NamedTemporaryFile(suffix=".f32") as file:
        y.tofile(file.name)
        for _ in range(ROUNDS):
            theirs = librosas(y) * 1e3 / (LIBROSA_PASSES * SECONDS)
            start_up = ours(program, 0, file.name)
            mine = (ours(program, OUR_PASSES, file.name) - start_up) * 1e3 / (OUR_PASSES * SECONDS)
            rounds.append((mine, theirs))
            print(f"undertone {mine:.4f}, librosa {theirs:.4f} ms of CPU per audio second")
    mine = statistics.median(mine for mine, _ in rounds)
    theirs = statistics.median(theirs for _, theirs in rounds)
    ratios = sorted(theirs / mine for mine, theirs in rounds)
    print(f"librosa {librosa.__version__}, numpy {np.__version__}, median of {ROUNDS} rounds:")
    print(f"undertone {mine:.4f}, librosa {theirs:.4f} ms of CPU per audio second")
    print(f"ratio {theirs / mine:.1f} (rounds {ratios[0]:.1f} to {ratios[-1]:.1f})")
    if theirs < 5 * mine:
        raise SystemExit("the bar is a ratio of 5")


if __name__ == "__main__":
    main()
