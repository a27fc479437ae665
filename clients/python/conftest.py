"""A real server for the tests, and for the examples in docstrings and README.md."""

from __future__ import annotations

import os
import pathlib

import pytest
from server import HELLO, Server

import undertone._target


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory):
    """A server with the built-in policies and a store, for all who do not stop it."""
    folder = tmp_path_factory.mktemp("server")
    with Server("--escalation-store", f"sqlite:{folder}/store.db", "--max-realtime-factor", "0") as server:
        yield server


# The one is written by protoc, the other needs a microphone's library.
collect_ignore = ["src/undertone/_generated", "src/undertone/_microphone.py"]


def stand_in(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Examples say `localhost:50051`, as users do; or nothing, which is the same. They get the test's server."""

    class Target(undertone._target.Target):
        def __init__(self, text: str) -> None:
            super().__init__(server.address if text in ("localhost", "localhost:50051") else text)

    monkeypatch.setattr("undertone.client.Target", Target)


@pytest.fixture
def target(server: Server) -> str:
    return server.address


@pytest.fixture(autouse=True)
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path):
    """Nothing of the caller's environment matters. Examples run in a folder with a recording, against the server."""
    for name in [name for name in os.environ if name.startswith("UNDERTONE_") and name != "UNDERTONE_BIN"]:
        monkeypatch.delenv(name)
    if isinstance(request.node, pytest.DoctestItem):
        stand_in(monkeypatch, request.getfixturevalue("server"))
        (tmp_path / "call.wav").write_bytes(HELLO.read_bytes())
        monkeypatch.chdir(tmp_path)
