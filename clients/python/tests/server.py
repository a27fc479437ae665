"""Real servers, and what is said to them."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import threading
from collections import deque

ROOT = pathlib.Path(__file__).resolve().parents[3]
HELLO = ROOT / "tests" / "data" / "hello.wav"
DATA = ROOT / "tests" / "data"
PATIENCE_S = 30

# Arousal is always above -1: raised as soon as enough was said, updated each second, cleared with the stream's end.
POLICY = """\
schema: undertone.policy/v1
name: heard
version: "1"
description: For a test.
rules:
  - name: says-something
    title: Says something
    severity: low
    when: {level: {of: arousal, over: 1s, on: -0.98, off: -0.99, min_speech: 500ms}}
    update_every: 1s
    on_session_end: clear
    reason: Arousal is {{ arousal | round(1) }}.
"""


def binary() -> str:
    path = os.environ.get("UNDERTONE_BIN")
    assert path, "set UNDERTONE_BIN to the built binary, such as target/debug/undertone"
    return path


def hello() -> bytes:
    """The samples of `hello.wav`: 7.3 s of one voice, 16-bit, 16 kHz."""
    data = HELLO.read_bytes()
    return data[data.index(b"data") + 8 :]


class Server:
    """`undertone serve` on free ports of this machine."""

    def __init__(self, *args: str | os.PathLike[str], address: str = "127.0.0.1:0") -> None:
        self._terminated = False
        env = dict(os.environ)
        libraries = sorted((ROOT / ".onnxruntime").glob("libonnxruntime.*"))
        if libraries:
            env.setdefault("ORT_DYLIB_PATH", str(libraries[0]))
        # Nothing depends on how busy the machine and its disk are.
        calm = ["--max-load", "0", "--max-engine-lag", "0s", "--max-worker-delay", "0s", "--store-timeout", "20s"]
        fixed = ["--grpc-address", address, "--http-address", "127.0.0.1:0", "--log-format", "json", *calm]
        self.process = subprocess.Popen(
            [binary(), "serve", *fixed, *args], stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env
        )
        assert self.process.stderr is not None
        log: deque[str] = deque(maxlen=50)
        for line in self.process.stderr:
            log.append(line)
            fields = json.loads(line)["fields"] if line.startswith("{") else {}
            if fields.get("message") == "serving":
                self.address: str = fields["grpc"]
                break
        else:
            self.process.wait()
            self.process.stderr.close()
            raise AssertionError("the server does not serve: " + "".join(log))
        self._log = log
        # A pipe that nobody reads would fill up and hold the server.
        self._reader = threading.Thread(target=lambda: log.extend(self.process.stderr or ()), daemon=True)
        self._reader.start()

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def kill(self) -> None:
        self.process.kill()
        self._ended()

    def terminate(self) -> None:
        """Drains it. A second signal would end it at once."""
        if not self._terminated:
            self._terminated = True
            self.process.send_signal(signal.SIGTERM)

    def _ended(self) -> None:
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self._ended()
