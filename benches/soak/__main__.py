"""A soak: a server over TLS with many streams for a long time, some of whose clients behave and some of whom do not.

    python benches/soak --streams 500 --seconds 1200

In three parts: a rehearsal of a few seconds, after which the server is idle and what it holds then is written down;
the soak itself; and the wait until the server is idle again. In the end it must hold what it held before, must not
have grown meanwhile, must have served those who behave, and must have delivered all that was raised.

Out: progress every minute, a table of checks, `soak.json` with every figure, `soak.svg` and `soak.png` if
matplotlib is there. Exit code 1 if a check fails, 130 if interrupted.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import time

import load
import picture
import verdict
from receiver import Receiver
from server import ROOT, Server
from watch import Watch

# The rehearsal: long enough for every pool to have been used.
REHEARSAL_S, REHEARSAL_STREAMS = 5, 20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description="See the head of benches/soak/__main__.py.")
    parser.add_argument("--streams", type=int, default=500, help="streams at once [500]")
    parser.add_argument("--seconds", type=int, default=1200, help="how long [1200]")
    parser.add_argument("--binary", type=pathlib.Path, default=None, help="[$UNDERTONE_BIN or target/release/undertone]")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "target/soak", help="folder of the results [target/soak]")
    parser.add_argument("--most-p99-ms", type=float, default=100.0, help="bar for the latency of those who behave [100]")
    parser.add_argument("--most-missed", type=float, default=verdict.MOST_MISSED, help="bar for their late chunks, a share [0.001]")
    parser.add_argument("--least-ways", type=int, default=13, help="ways to behave that the crowd has to go through [13]")
    parser.add_argument("--haste", type=float, default=1.0, help="how long clients of the crowd take for what they do [1.0]")
    asked = parser.parse_args()
    if asked.streams < 10 or asked.seconds < 5:
        parser.error("--streams is at least 10 and --seconds at least 5")
    asked.binary = asked.binary or pathlib.Path(os.environ.get("UNDERTONE_BIN") or ROOT / "target/release/undertone")
    if not os.access(asked.binary, os.X_OK):
        parser.error(f"--binary: there is no {asked.binary}; cargo build --release makes one")
    asked.binary = asked.binary.resolve()
    return asked


def is_idle(sample: dict) -> bool:
    return sample["streams"] == 0 and sample["connections"] == 0 and sample["outstanding"] == 0


def wait_until_idle(watch: Watch, like: dict | None) -> dict:
    """The sample of a server whose clients have gone. If it does not come to be `like` the one before, the last."""
    deadline = time.monotonic() + load.QUIET_S
    while True:
        sample = watch.take()
        settled = like is None or sample["tasks"] <= like["tasks"]
        if is_idle(sample) and settled and sample["happened"] == watch.samples[-1]["happened"]:
            return sample
        if time.monotonic() > deadline:
            return sample
        time.sleep(1)


def tell(watch: Watch, receiver: Receiver) -> None:
    sample = watch.samples[-1]
    print(
        f"{sample['t'] / 60:5.1f} min  {sample['streams']:.0f} streams on {sample['connections']:.0f} connections, "
        f"{sample['resident_kib'] / 1024:.0f} MiB, {sample['handles']:.0f} handles, {sample['tasks']:.0f} tasks; "
        f"{sample['happened']:.0f} things happened, {len(receiver.ids)} delivered",
        flush=True,
    )


def pass_time(under_way: load.Load, watch: Watch, receiver: Receiver, server: Server) -> None:
    """Until the load is over, or the server."""
    due = time.monotonic() + 60
    while not under_way.is_over and time.monotonic() < under_way.ends + load.FINISH_S:
        if server.process.poll() is not None:
            raise SystemExit(f"soak: the server ended with {server.process.returncode}; its log: {server.log}")
        if time.monotonic() >= due:
            due += 60
            tell(watch, receiver)
        time.sleep(0.5)


def soak(asked: argparse.Namespace, folder: pathlib.Path) -> dict:
    receiver = Receiver()
    server = Server(folder, asked.binary, receiver.port)
    generated = load.make_stubs(folder)
    under_way: load.Load | None = None
    watch: Watch | None = None
    try:
        server.serve()
        watch = Watch(server)
        watch.samples.append(watch.take())
        watch.start()
        print(f"rehearsal: {REHEARSAL_STREAMS} streams for {REHEARSAL_S} s", flush=True)
        under_way = load.Load(server, generated, "rehearsal", REHEARSAL_STREAMS, REHEARSAL_S, 0.2)
        pass_time(under_way, watch, receiver, server)
        under_way.finish()
        idle_before = wait_until_idle(watch, None)
        # Whatever keeps a connection for a while has let it go, or is counted both times.
        began = watch.now
        print(f"soak: {asked.streams} streams for {asked.seconds} s", flush=True)
        under_way = load.Load(server, generated, "soak", asked.streams, asked.seconds, asked.haste)
        # Ends while the mass still talks: its own end is no part of what is measured.
        over = began + asked.seconds
        pass_time(under_way, watch, receiver, server)
        seen = under_way.finish()
        print("the clients have gone; waiting until the server is idle", flush=True)
        idle = wait_until_idle(watch, idle_before)
        sessions = len(json.loads(server.get("/sessions")))
        watch.stop()
        lines = server.lines()
        return {
            "streams": asked.streams, "seconds": asked.seconds, "load": seen, "began_s": began,
            "warm_s": began + verdict.WARM_UP * asked.seconds, "over_s": over, "idle_before": idle_before, "idle": idle,
            "sessions": sessions, "delivered": len(receiver.ids), "delivered_again": sum(receiver.ids.values()) - len(receiver.ids),
            "unexplained": verdict.unexplained(lines), "log_lines": len(lines), "missed_samples": watch.missed,
            "exit_code": server.stop(), "samples": watch.samples,
        }  # fmt: skip
    finally:
        if under_way:
            under_way.cut_off()
        if watch:
            watch.stop()
        server.stop()
        receiver.stop()


def main() -> int:
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        try:
            run = soak(asked, pathlib.Path(folder))
        except KeyboardInterrupt:
            print("soak: interrupted", file=sys.stderr)
            return 130
        except BaseException:
            log = pathlib.Path(folder) / "server.log"
            if log.exists():
                (asked.out / "server.log").write_bytes(log.read_bytes())
            raise
        (asked.out / "server.log").write_bytes((pathlib.Path(folder) / "server.log").read_bytes())
    limits = {"p99_ms": asked.most_p99_ms, "missed": asked.most_missed, "ways": asked.least_ways}
    checks = verdict.judge(run, limits)
    run["checks"] = [dataclasses.asdict(check) for check in checks]
    (asked.out / "soak.json").write_text(json.dumps(run, indent=1) + "\n")
    drawn = picture.draw(run, asked.out / "soak.svg")
    for check in checks:
        print(f"{'ok  ' if check.good else 'FAIL'}  {check.what}: {check.is_} ({check.may_be})")
    print(f"all figures: {asked.out / 'soak.json'}" + ("" if drawn else "; no picture: matplotlib is missing"))
    failed = [check.what for check in checks if not check.good]
    if failed:
        print(f"soak: failed: {'; '.join(failed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
