"""Makes docs/live.svg: a real server, a real `undertone stream`, its terminal as an animated picture.

    cargo build --release
    python3 -m venv /tmp/recorder && /tmp/recorder/bin/pip install pyte==0.8.2
    /tmp/recorder/bin/python docs/record.py

The speech is espeak-ng's (apt-get install espeak-ng): a calm sentence, then an agitated one. What the
picture shows is what the model made of it in that run; nothing is touched up. The client runs in a
pseudo-terminal, pyte interprets what it writes, and every picture of the terminal becomes a frame of one
SVG: rows that recur stand in it once, a CSS animation moves the film.
"""

import argparse
import fcntl
import os
import pty
import socket
import struct
import subprocess
import tempfile
import termios
import time
import urllib.request
import wave
from html import escape
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, ROWS = 80, 17
FRAMES_PER_SECOND = 5
STILL_S = 3.0
# Size of one character cell, in px.
CELL_W, CELL_H = 8.4, 19.0
MARGIN = 14.0
FONT_SIZE = 14
BACKGROUND, FOREGROUND = "#16181d", "#d7dae0"
SENTENCES = [
    ("The ward is quiet this morning, and I slept quite well.", ["-s", "150", "-p", "35", "-a", "70"]),
    ("No! Stop it! I told you, I told you three times, it hurts!", ["-s", "210", "-p", "80", "-a", "180"]),
]
PAUSE_S = 1.0
EIGHTHS = {block: eighths / 8 for eighths, block in enumerate("▏▎▍▌▋▊▉█", start=1)}


def speak(path):
    """Writes the sentences to `path`, with a pause behind each."""
    with tempfile.TemporaryDirectory() as folder, wave.open(str(path), "wb") as out:
        for index, (text, voice) in enumerate(SENTENCES):
            part = Path(folder) / f"{index}.wav"
            subprocess.run(["espeak-ng", "-v", "en-gb", *voice, "-w", part, text], check=True)
            with wave.open(str(part)) as spoken:
                if index == 0:
                    out.setparams(spoken.getparams())
                out.writeframes(spoken.readframes(spoken.getnframes()))
                out.writeframes(bytes(2 * int(PAUSE_S * spoken.getframerate())))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_ready(port):
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server does not come up")


def run_in_terminal(command):
    """Runs `command` in a pseudo-terminal; gives what it wrote as (seconds, bytes)."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    began, written = time.monotonic(), []
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:  # what Linux says when the last writer has gone
            break
        if not data:
            break
        written.append((time.monotonic() - began, data))
    os.close(leader)
    if process.wait() != 0:
        raise SystemExit(f"undertone stream ended with {process.returncode}")
    return written


def develop(written):
    """What was written, as pictures (seconds, rows): one whenever the terminal had come to rest."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    frames = []
    for index, (seconds, data) in enumerate(written):
        stream.feed(data)
        last = index + 1 == len(written)
        # What is written in one go is drawn in one go: the rest of a picture comes at once.
        rests = last or written[index + 1][0] - seconds > 0.01
        due = not frames or seconds - frames[-1][0] >= 0.95 / FRAMES_PER_SECOND
        if last or (rests and due):
            frames.append((seconds, picture(screen)))
    return frames


def picture(screen):
    """The rows as tuples of (column, text, colour, bold)."""
    rows = []
    for y in range(screen.lines):
        runs, run = [], None
        for x in range(screen.columns):
            cell = screen.buffer[y][x]
            style = (cell.fg, cell.bold)
            if run is None or run[2:] != style:
                run = (x, cell.data, *style)
                runs.append(run)
            else:
                run = (run[0], run[1] + cell.data, *style)
                runs[-1] = run
        rows.append(tuple(run for run in runs if run[1].strip()))
    return tuple(rows)


def colour(name):
    if name == "default":
        return FOREGROUND
    return name if not all(c in "0123456789abcdef" for c in name) else f"#{name}"


def row_svg(runs):
    """One row, at the top of its own coordinates."""
    parts = []
    for column, text, fg, bold in runs:
        # Blocks are drawn, so that bars have no seams whatever the font.
        at = 0
        while at < len(text):
            blocks = 0.0
            end = at
            while end < len(text) and text[end] in EIGHTHS:
                blocks += EIGHTHS[text[end]]
                end += 1
            if end > at:
                parts.append(
                    f'<rect x="{(column + at) * CELL_W:.1f}" y="4" width="{blocks * CELL_W:.1f}" '
                    f'height="{CELL_H - 7:g}" fill="{colour(fg)}"/>'
                )
                at = end
                continue
            while end < len(text) and text[end] not in EIGHTHS:
                end += 1
            piece = text[at:end]
            start = at + len(piece) - len(piece.lstrip())
            piece = piece.strip()
            at = end
            if piece:
                weight = ' font-weight="700"' if bold else ""
                fill = "" if fg == "default" else f' fill="{colour(fg)}"'
                parts.append(
                    f'<text x="{(column + start) * CELL_W:.1f}" y="14" '
                    f'textLength="{len(piece) * CELL_W:.1f}"{fill}{weight}>{escape(piece)}</text>'
                )
    return "".join(parts)


def film(frames):
    """The SVG: rows once, frames side by side, one animation."""
    width, height = COLUMNS * CELL_W + 2 * MARGIN, ROWS * CELL_H + 2 * MARGIN
    total = frames[-1][0] + STILL_S
    ids, defs, strip, steps = {}, [], [], []
    for index, (seconds, rows) in enumerate(frames):
        uses = []
        for y, runs in enumerate(rows):
            if not runs:
                continue
            if runs not in ids:
                ids[runs] = f"r{len(ids)}"
                defs.append(f'<g id="{ids[runs]}">{row_svg(runs)}</g>')
            uses.append(f'<use href="#{ids[runs]}" y="{y * CELL_H:g}"/>')
        strip.append(f'<g transform="translate({index * width:g} 0)">{"".join(uses)}</g>')
        steps.append(f"{100 * seconds / total:.2f}%{{transform:translateX({-index * width:g}px)}}")
    # Where nothing moves the picture of the loudest moment stands: three quarters through.
    still = max(i for i, (seconds, _) in enumerate(frames) if seconds <= 0.75 * frames[-1][0])
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" \
width="{width:g}" height="{height:g}" role="img">
<title>undertone stream: the emotion of a voice, live in the terminal</title>
<style>
text{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;\
font-size:{FONT_SIZE}px;white-space:pre}}
.film{{animation:film {total:.2f}s step-end infinite}}
@keyframes film{{{"".join(steps)}}}
@media (prefers-reduced-motion:reduce){{.film{{animation:none}}}}
</style>
<defs>{"".join(defs)}<clipPath id="c"><rect width="{COLUMNS * CELL_W:g}" height="{ROWS * CELL_H:g}"/></clipPath></defs>
<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>
<g fill="{FOREGROUND}" transform="translate({MARGIN:g} {MARGIN:g})" clip-path="url(#c)">
<g class="film" transform="translate({-still * width:g} 0)">{"".join(strip)}</g>
</g>
</svg>
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/undertone")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/live.svg")
    parser.add_argument("--audio", type=Path, help="speech to use instead of espeak-ng's")
    arguments = parser.parse_args()
    grpc, http = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        speech = arguments.audio or Path(folder) / "speech.wav"
        if arguments.audio is None:
            speak(speech)
        addresses = ["--grpc-address", f"127.0.0.1:{grpc}", "--http-address", f"127.0.0.1:{http}"]
        server = subprocess.Popen([arguments.binary, "serve", *addresses, "--log", "error"])
        try:
            wait_until_ready(http)
            client = ["stream", speech, "--interval", "250ms", "--session-id", "bed-7"]
            written = run_in_terminal([arguments.binary, *client, "--target", f"127.0.0.1:{grpc}"])
        finally:
            server.terminate()
            server.wait()
    frames = develop(written)
    arguments.out.write_text(film(frames), encoding="utf-8")
    print(f"{arguments.out}: {len(frames)} frames, {arguments.out.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
