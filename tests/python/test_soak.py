"""The short form of the soak: `make soak` has the long one."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_short_soak_leaves_nothing_behind_and_delivers_all_that_was_raised(tmp_path):
    soaked = subprocess.run(
        [
            sys.executable, ROOT / "benches/soak", "--streams", "40", "--seconds", "15", "--haste", "0.2",
            # A debug build on a machine that other tests share: what is measured here is no latency.
            "--most-p99-ms", "5000", "--most-missed", "0.5", "--least-ways", "5",
            "--binary", os.environ["UNDERTONE_BIN"], "--out", tmp_path,
        ],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert soaked.returncode == 0, soaked.stdout + soaked.stderr
    run = json.loads((tmp_path / "soak.json").read_text())
    assert all(check["good"] for check in run["checks"]) and len(run["checks"]) > 20
    assert run["delivered"] > 0 and run["idle"]["streams"] == 0
