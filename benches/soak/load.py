"""Who talks to the server during a soak: the mass, which behaves, and the crowd, most of which does not."""

import json
import math
import pathlib
import signal
import subprocess
import sys
import time

from server import IDLE_S, LOST_S, PING_S, UNREAD_S, Server

HERE = pathlib.Path(__file__).resolve().parent
# Of all streams: those of the crowd, and those of the mass that have a policy.
OF_CROWD, OF_WATCHED = 0.15, 0.05
# What `undertone bench` takes beside the time measured: starting 250 streams a second, settling, finishing.
STARTS_PER_SECOND, SETTLE_S, FINISH_S = 250, 3, 20
# As long as a client hangs until the server must have noticed, amply.
HANG_S = 2 * max(IDLE_S, UNREAD_S, 2 * PING_S)


def make_stubs(folder: pathlib.Path) -> pathlib.Path:
    """The protocol's Python modules."""
    import importlib

    from grpc_tools import protoc

    out, proto = folder / "generated", HERE.parents[1] / "proto"
    out.mkdir()
    files = sorted(str(path) for path in proto.rglob("*.proto"))
    well_known = pathlib.Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
    command = ["protoc", f"-I{proto}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
    if protoc.main(command) != 0:
        raise SystemExit("soak: protoc refuses the protocol")
    return out


class Load:
    """`streams` for `seconds`, under way."""

    def __init__(self, server: Server, generated: pathlib.Path, name: str, streams: int, seconds: int, haste: float) -> None:
        self.folder = server.folder / name
        self.folder.mkdir()
        crowd = max(4, round(OF_CROWD * streams))
        watched = max(1, round(OF_WATCHED * streams))
        mass = max(1, streams - crowd - watched)
        self.shares = {"mass": mass, "watched": watched, "crowd": crowd}
        settle = math.ceil(mass / STARTS_PER_SECOND) + SETTLE_S
        self.ends = time.monotonic() + seconds + settle
        self._mass = self._bench(server, "mass", mass, seconds, server.metrics_flags())
        policy = ["--metrics", "none", "--policy-file", str(server.folder / "often.yaml")]
        self._watched = self._bench(server, "watched", watched, seconds, policy)
        config = {
            "root": str(HERE.parents[1]), "generated": str(generated), "port": server.grpc_port, "target": server.target,
            "certificate": str(server.certificate), "token": server.token, "token_file": str(server.token_file),
            "quiet": str(server.folder / "quiet.yaml"), "binary": str(server.binary), "places": crowd,
            "seconds": seconds + settle, "seed": streams + seconds, "haste": haste, "hang_s": HANG_S,
            "result": str(self.folder / "crowd.json"),
        }  # fmt: skip
        path = self.folder / "config.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        self._crowd = subprocess.Popen([sys.executable, HERE / "crowd.py", path], stdin=subprocess.PIPE)

    def _bench(self, server: Server, name: str, streams: int, seconds: int, more: list[str]) -> subprocess.Popen:
        with (self.folder / f"{name}.json").open("w") as out, (self.folder / f"{name}.err").open("w") as err:
            return subprocess.Popen(
                [
                    server.binary, "bench", "--target", server.target, "--ca", server.certificate,
                    "--token-file", server.token_file, "--streams", str(streams), "--seconds", str(seconds),
                    "--format", "json", *more,
                ],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

    @property
    def is_over(self) -> bool:
        return all(process.poll() is not None for process in (self._mass, self._watched, self._crowd))

    def finish(self) -> dict:
        """Waits until all have come to their end; what they have seen."""
        for process in (self._mass, self._watched, self._crowd):
            try:
                process.wait(max(0, self.ends - time.monotonic()) + 2 * FINISH_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        seen: dict = {"shares": self.shares}
        for name in ("mass", "watched", "crowd"):
            path = self.folder / f"{name}.json"
            try:
                seen[name] = json.loads(path.read_text())
            except (OSError, ValueError):
                error = self.folder / f"{name}.err"
                words = error.read_text()[-500:] if error.exists() else "its own words stand above"
                seen[name] = {"failed": f"it left no result: {words}"}
        return seen

    def cut_off(self) -> None:
        """Ends all that is still there."""
        for process in (self._mass, self._watched):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        if self._crowd.poll() is None and self._crowd.stdin:
            # The crowd ends the processes that it has started, and then itself.
            self._crowd.stdin.close()
        for process in (self._mass, self._watched, self._crowd):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# Until sessions that broke off have been taken for lost and their escalations delivered.
QUIET_S = math.ceil(LOST_S) + HANG_S + 10
