"""Whatever README.md shows does what it says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
import threading
import types

import pytest
from server import HELLO, ROOT, Server, hello

from conftest import stand_in

README = (ROOT / "clients" / "python" / "README.md").read_text()
BLOCKS = re.findall(r"<!-- run -->\n```python\n(.*?)```\n(?:\n<!-- output -->\n```\n(.*?)```\n)?", README, re.DOTALL)


class Voice:
    """A microphone into which somebody says hello."""

    def __init__(self, callback, **_: object) -> None:
        self._thread = threading.Thread(target=self._speak, args=(callback,))

    def _speak(self, callback) -> None:
        samples = hello() + bytes(64_000)
        for first in range(0, len(samples), 3_200):
            callback(samples[first : first + 3_200], 1_600, None, None)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()


@pytest.mark.parametrize(("code", "output"), BLOCKS, ids=[str(n) for n in range(len(BLOCKS))])
def test_an_example_runs(code, output, server: Server, tmp_path, monkeypatch, capsys):
    stand_in(monkeypatch, server)
    (tmp_path / "call.wav").write_bytes(HELLO.read_bytes())
    (tmp_path / "tls.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    (tmp_path / "app.token").write_text("ut_token")
    module = types.ModuleType("sounddevice")
    module.RawInputStream = Voice
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    monkeypatch.delitem(sys.modules, "undertone._microphone", raising=False)
    monkeypatch.chdir(tmp_path)
    compiled = compile(code, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if compiled.co_flags & inspect.CO_COROUTINE:

        async def run() -> None:
            await eval(compiled, {"__name__": "example"})

        asyncio.run(run())
    else:
        exec(compiled, {"__name__": "example"})
    printed = capsys.readouterr().out
    if output:
        assert printed == output
    # What prints only when something is wrong, or was raised before, may stay silent.
    elif "print(" in code and not any(word in code for word in ("Reconnected", "distressed", "escalations(")):
        assert printed


def test_every_python_example_is_run():
    assert README.count("```python\n") == len(BLOCKS) >= 9
