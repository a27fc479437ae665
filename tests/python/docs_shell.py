"""Runs a page: its blocks of shell in order, in one bash, in a folder that looks like a checkout with the program built.

Pages name the usual ports, 50051 and 9464; those that run get ports of their own, by the environment where nobody names any and
by replacing the numbers where somebody does. So pages can run side by side, and beside a server of somebody else's.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

from docs_pages import ROOT, SHELL, Block, Hidden, parts

TIMEOUT_S = 100
READY_S = 30


@dataclass
class Outcome:
    """What came of a page."""

    problem: str = ""
    seconds: float = 0.0
    ran: int = 0


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# Waits until the HTTP port answers, over TLS or without; gives up when the server, whose number is given, has ended.
READY = """
import http.client, os, ssl, sys, time, urllib.request
port, process, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
end = time.monotonic() + seconds
while time.monotonic() < end:
    os.kill(process, 0)
    for scheme in ("http", "https"):
        try:
            trust = context if scheme == "https" else None
            urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/healthz", timeout=2, context=trust)
            sys.exit(0)
        except (OSError, http.client.HTTPException): pass
    time.sleep(0.05)
sys.exit("the server is not ready")
"""

# A block of Python as people would type it, `await` included.
PYTHON = """
import ast, asyncio, inspect, sys
path = sys.argv[1]
code = compile(open(path).read(), path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__"}
if code.co_flags & inspect.CO_COROUTINE:
    async def run():
        await eval(code, names)
    asyncio.run(run())
else:
    exec(code, names)
"""

PRELUDE = """
set -euo pipefail
at=start
trap 'code=$?; if [ $code -ne 0 ]; then echo "$at" > "$STEPS/failed"; fi' EXIT
stop() {
    if [ -n "$server" ]; then kill -TERM "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; fi
}
server=
"""


def own_ports(text, ports):
    """A text with the page's ports in place of the usual ones."""
    grpc, http = ports
    return re.sub(r"\b9464\b", str(http), re.sub(r"\b50051\b", str(grpc), text))


def checkout(folder):
    """A copy of what is checked out, so that what a page does to it is done to nobody's work."""
    skipped = shutil.ignore_patterns(
        "node_modules", "target", "__pycache__", "_generated", "generated", "undertone.db*", ".[!.]*"
    )
    made = {str(ROOT / "training"): {"data", "runs"}}
    shutil.copytree(ROOT, folder, ignore=lambda at, names: skipped(at, names) | made.get(at, set()), symlinks=True)
    return folder


def scratch(folder, copy, binary, ports):
    """Makes a page's folder look like a checkout with the program built."""
    for entry in copy.iterdir():
        if entry.name == "examples":
            (folder / "examples").mkdir()
            for example in entry.iterdir():
                (folder / "examples" / example.name).write_text(own_ports(example.read_text(encoding="utf-8"), ports))
        else:
            (folder / entry.name).symlink_to(entry)
    for kind in ("release", "debug"):
        (folder / "target" / kind).mkdir(parents=True)
        (folder / "target" / kind / "undertone").symlink_to(binary)


def environment(folder, binary, modules, ports):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UNDERTONE_", "OTEL_"))}
    grpc, http = ports
    return kept | {
        "PATH": os.pathsep.join([str(Path(binary).parent), str(Path(sys.executable).parent), kept.get("PATH", "")]),
        "MODULES": str(modules),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder),
        "NO_COLOR": "1",
        "UNDERTONE_GRPC_ADDRESS": f"127.0.0.1:{grpc}",
        "UNDERTONE_HTTP_ADDRESS": f"127.0.0.1:{http}",
        "UNDERTONE_TARGET": f"127.0.0.1:{grpc}",
        # Nothing depends on how busy the machine and its disk are.
        "UNDERTONE_MAX_LOAD": "0",
        "UNDERTONE_MAX_ENGINE_LAG": "0s",
        "UNDERTONE_MAX_WORKER_DELAY": "0s",
        "UNDERTONE_STORE_TIMEOUT": "20s",
    }


class Script:
    """The bash of one page, as it is put together."""

    def __init__(self, steps, ports):
        self.steps, self.ports = steps, ports
        self.lines = [PRELUDE]
        self.count = 0
        self.where = {}
        # Number of a step -> what it must print.
        self.expected = {}

    def put(self, where, text, suffix):
        self.count += 1
        self.where[self.count] = where
        path = self.steps / f"{self.count:02}{suffix}"
        path.write_text(own_ports(text, self.ports), encoding="utf-8")
        self.lines.append(f"at={self.count}")
        return shlex.quote(str(path)), f'"$STEPS/{self.count:02}.out"'

    def shell(self, where, text):
        path, out = self.put(where, text, ".sh")
        self.lines.append(f"source {path} >{out} 2>&1 </dev/null")

    def server(self, where, text):
        # What comes last in the block is the server: its process is the one that is waited for and stopped.
        path, out = self.put(
            where, re.sub(r"^((?:target/\w+/)?undertone serve)\b", r"exec \1", text, flags=re.MULTILINE), ".sh"
        )
        ready = shlex.quote(str(self.steps / "ready.py"))
        self.lines.append(f"stop; bash -euo pipefail {path} >{out} 2>&1 </dev/null & server=$!")
        self.lines.append(f'python3 {ready} {self.ports[1]} "$server" {READY_S} >>{out} 2>&1')

    def python(self, where, text):
        path, out = self.put(where, text, ".py")
        # The client is not for the blocks of shell: what protoc makes has the same name.
        self.lines.append(
            f'PYTHONPATH="$MODULES" python3 {shlex.quote(str(self.steps / "python.py"))} {path} >{out} 2>&1 </dev/null'
        )

    def file(self, where, name, text):
        path, _ = self.put(where, text, ".file")
        self.lines.append(f"mkdir -p {shlex.quote(str(Path(name).parent))}; cp {path} {shlex.quote(name)}")


def commands(block):
    """What is run of a block: of a `console`, what stands behind `$ `."""
    if block.language != "console":
        return block.text
    return "\n".join(line[2:] if line.startswith(("$ ", "> ")) else "" for line in block.text.splitlines())


def script(page, steps, ports, marks, before):
    """The page as a script; None if nothing of it is run. `before` is what it does not say itself."""
    made, ran = Script(steps, ports), 0
    for part in [*before, *parts(page)]:
        where = f"{page.relative_to(ROOT)}:{part.line}"
        if isinstance(part, Hidden):
            (made.server if part.kind == "server" else made.shell)(where, part.text + "\n")
            continue
        assert isinstance(part, Block)
        if part.page != page or part.mark or part.text.startswith(tuple(marks)):
            continue
        if "file" in part.says:
            made.file(where, part.says["file"], part.text)
        elif "output" in part.says:
            assert made.count, f"{where}: an output of nothing"
            made.expected[made.count] = (where, own_ports(part.text, ports))
        elif part.language in SHELL:
            ran += 1
            (made.server if "server" in part.says else made.shell)(where, commands(part))
        elif part.language == "python" and ("run" in part.says or page == ROOT / "README.md"):
            ran += 1
            made.python(where, part.text)
    made.lines.append("stop")
    return (made, ran) if ran else (None, 0)


NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])")


def is_like(expected, actual):
    """Whether a line is as expected: `...` is anything, and a number may differ by one in its last digit, as processors do."""
    pattern = ".*".join(NUMBER.sub("NUMBER", re.escape(piece).replace(r"\.", ".")) for piece in expected.split("..."))
    pattern = re.sub(r"(?<!\*)\.(?!\*)", r"\.", pattern).replace("NUMBER", r"(\d+(?:\.\d+)?)")
    found = re.fullmatch(pattern, actual)
    if not found:
        return False
    wanted = NUMBER.findall(expected.replace("...", " "))
    step = [10.0 ** -len(number.partition(".")[2]) for number in wanted]
    return all(
        abs(float(one) - float(other)) <= 1.01 * by for one, other, by in zip(wanted, found.groups(), step, strict=True)
    )


def matches(expected, actual):
    """The first line that is expected and does not come, in order; None if all do. A line of `...` alone is any lines."""
    actual, at = [line.rstrip() for line in actual.splitlines()], 0
    for line in expected.splitlines():
        if line.strip() in ("", "..."):
            continue
        while at < len(actual) and not is_like(line.rstrip(), actual[at]):
            at += 1
        if at == len(actual):
            return line
        at += 1
    return None


def run(page, folder, copy, binary, modules, marks=(), before=()):
    """Runs what a page says; gives what came of it."""
    began = time.monotonic()
    ports = (free_port(), free_port())
    steps = folder / "steps"
    work = folder / "work"
    for made in (steps, work):
        made.mkdir()
    (steps / "ready.py").write_text(READY)
    (steps / "python.py").write_text(PYTHON)
    made, ran = script(page, steps, ports, marks, before)
    if made is None:
        return Outcome()
    scratch(work, copy, binary, ports)
    (steps / "page.sh").write_text("\n".join(made.lines) + "\n", encoding="utf-8")
    variables = environment(work, binary, modules, ports) | {"STEPS": str(steps)}
    process = subprocess.Popen(
        ["bash", steps / "page.sh"], cwd=work, env=variables, stdin=subprocess.DEVNULL,
        stdout=(steps / "page.out").open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    problem = ""
    try:
        code = process.wait(TIMEOUT_S)
        if code:
            failed = (steps / "failed").read_text().strip() if (steps / "failed").exists() else "start"
            problem = f"exit code {code}" + told(made, steps, failed)
    except subprocess.TimeoutExpired:
        done = sorted(steps.glob("*.out"))
        problem = f"not done within {TIMEOUT_S} s" + told(made, steps, done[-1].stem if done else "start")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if not problem:
        for number, (where, text) in made.expected.items():
            printed = (steps / f"{number:02}.out").read_text(errors="replace")
            if (line := matches(text, printed)) is not None:
                problem = f"{where}: nothing (more) like {line!r} is printed; it is\n{textwrap.indent(printed, '    ')}"
                break
    return Outcome(problem, time.monotonic() - began, ran)


def told(made, steps, step):
    """Where it failed, and what was printed there."""
    if not step.isdigit():
        return "\n" + (steps / "page.out").read_text(errors="replace")
    number = int(step)
    out = steps / f"{number:02}.out"
    printed = out.read_text(errors="replace")[-3000:] if out.exists() else ""
    printed += (steps / "page.out").read_text(errors="replace")[-1000:]
    return f" at {made.where[number]}; it printed\n{textwrap.indent(printed, '    ')}"
