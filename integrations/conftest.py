"""What the tests of all integrations share: real servers, and audio on which a policy fires."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import threading
import wave
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TIMEOUT_S = 30

# Fires in hello.wav, some 4 s in: its second half sounds sadder to the model.
POLICY = """
schema: undertone.policy/v1
name: for-tests
version: "1"
description: Fires on the audio of the tests.
rules:
  - name: distressed
    title: Sounds distressed
    severity: high
    when:
      level: {of: distress, over: 2s, on: 0.42, off: 0.1, min_speech: 500ms}
    clear_after: 60s
    update_every: 0s
    reason: Distress at {{ distress | percent }}.
"""


class Server:
    """A server process: started, killed, started again at the same address."""

    def __init__(self, folder: pathlib.Path, *flags: str, address: str = "127.0.0.1:0") -> None:
        binary = os.environ.get("UNDERTONE_BIN")
        assert binary, "set UNDERTONE_BIN to the built binary, such as target/debug/undertone"
        self._binary = binary
        self._folder = folder
        self._flags = flags
        self._process: subprocess.Popen[str] | None = None
        self.address = address
        self.start()

    def start(self) -> None:
        environment = dict(os.environ)
        library = ROOT / ".onnxruntime" / "libonnxruntime.so"
        if library.exists():
            environment.setdefault("ORT_DYLIB_PATH", str(library))
        self._process = subprocess.Popen(
            [
                self._binary, "serve", "--grpc-address", self.address, "--http-address", "127.0.0.1:0",
                "--log-format", "json", "--escalation-store", f"sqlite:{self._folder / 'undertone.db'}",
                "--max-realtime-factor", "0", "--min-checkpoint-interval", "1s",
                # Nothing depends on how busy the machine and its disk are.
                "--max-load", "0", "--max-engine-lag", "0s", "--max-worker-delay", "0s", "--store-timeout", "20s",
                *self._flags,
            ],
            cwd=self._folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        # Read to its end, lest the server blocks on a full pipe.
        threading.Thread(target=self._read, args=(self._process, lines), daemon=True).start()
        log = []
        while line := lines.get(timeout=TIMEOUT_S):
            log.append(line)
            fields = json.loads(line)["fields"] if line.startswith("{") else {}
            if fields.get("message") == "serving":
                self.address = fields["grpc"]
                return
        raise AssertionError("the server does not serve: " + "".join(log))

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.put(line)
        lines.put("")

    def kill(self) -> None:
        """As a machine dies: no word to anybody."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(TIMEOUT_S)

    def pause(self) -> None:
        """It hangs: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait(TIMEOUT_S)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that all tests share; none may end it."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path: pathlib.Path) -> Iterator[Server]:
    """A server of this test's own, to kill."""
    server = Server(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, and nobody will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*held.getsockname())


@dataclasses.dataclass(frozen=True)
class Speech:
    """16-bit PCM."""

    data: bytes
    rate_hz: int

    def chunks(self, seconds: float = 0.02) -> list[bytes]:
        size = int(self.rate_hz * seconds) * 2
        return [self.data[first : first + size] for first in range(0, len(self.data), size)]


@pytest.fixture(scope="session")
def speech() -> Speech:
    """7.3 s of synthesised speech, mono at 16 kHz: neutral at first, then sad to the model."""
    with wave.open(str(ROOT / "tests" / "data" / "hello.wav")) as wav:
        return Speech(wav.readframes(wav.getnframes()), wav.getframerate())


@pytest.fixture(scope="session")
def policy() -> str:
    """A policy that fires on `speech`."""
    return POLICY
