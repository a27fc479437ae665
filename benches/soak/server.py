"""The server of a soak, in a folder of its own with a certificate, tokens, policies and a delivery file."""

import base64
import json
import os
import pathlib
import secrets
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Time-outs are short, so that every one of them is met often. Seconds.
IDLE_S, UNREAD_S, PREFACE_S, PING_S, RESUME_S = 4, 3, 3, 2, 4
# Twice that, a session that broke off counts as alive, and a third of that is how often it is looked for it.
LOST_S = 2 * RESUME_S + 2 * RESUME_S / 3
# From the beginning of the server, over its model, until it serves; a debug build needs seconds.
START_S = 60
STOP_S = 40

# The mass that has a policy: something happens to each of its streams every few seconds.
OFTEN = """\
schema: undertone.policy/v1
name: often
version: "1"
description: Fires often.
budget: 1000
rules:
  - name: often
    title: Often
    severity: low
    when: {level: {of: distress, over: 4s, on: 0.02, off: 0.01, min_speech: 1s}}
    clear_after: 0s
    cooldown: 1s
    update_every: 5s
    reason: "distress is at {{ distress | percent }}"
"""
# The crowd's: raises in every pause of a second, and once more for those that clear with their session.
QUIET = """\
schema: undertone.policy/v1
name: quiet
version: "1"
description: Raises when nobody speaks.
budget: 1000
rules:
  - name: quiet
    title: Quiet
    severity: medium
    when: {silence: {for: 1s}}
    clear_after: 0s
    cooldown: 0s
    reason: "nothing heard for {{ silence }} s"
  - name: quieter
    title: Quieter
    severity: low
    when: {silence: {for: 1500ms}}
    clear_after: 0s
    cooldown: 0s
    on_session_end: clear
    reason: "nothing heard for {{ silence }} s"
"""


class Server:
    def __init__(self, folder: pathlib.Path, binary: pathlib.Path, receiver_port: int) -> None:
        self.folder, self.binary = folder, binary
        self.process: subprocess.Popen | None = None
        self.grpc_port = self.http_port = 0
        self.log = folder / "server.log"
        self._certify()
        # Held here, and read by the server from its environment: written down nowhere.
        self.webhook_secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.token = self._identify()
        (folder / "often.yaml").write_text(OFTEN)
        (folder / "quiet.yaml").write_text(QUIET)
        (folder / "delivery.yaml").write_text(
            "schema: undertone.delivery/v1\nsinks:\n  - name: receiver\n    webhook:\n"
            f"      url: http://127.0.0.1:{receiver_port}/\n      secrets: [{{env: SOAK_SECRET}}]\n"
            "      allow_private: true\n"
        )
        self.tls = ssl.create_default_context(cafile=str(self.certificate))

    def _certify(self) -> None:
        self.certificate, self.key = self.folder / "tls.crt", self.folder / "tls.key"
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", "2", "-subj", "/CN=a soak", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                # Clients refuse an authority's own.
                "-addext", "basicConstraints=critical,CA:FALSE",
                "-keyout", str(self.key), "-out", str(self.certificate),
            ],
            check=True, capture_output=True,
        )  # fmt: skip

    def _identify(self) -> str:
        made = subprocess.run([self.binary, "identities", "token"], check=True, capture_output=True, text=True)
        line = made.stderr.splitlines()[-1].strip()
        self.identities = self.folder / "identities.yaml"
        self.identities.write_text(
            "schema: undertone.identities/v1\nidentities:\n  - name: soak\n    all_tenants: true\n"
            "    roles: [stream, watch, acknowledge, admin]\n    tokens:\n      " + line + "\n"
        )
        token = made.stdout.strip()
        self.token_file = self.folder / "token"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(token + "\n")
        return token

    @property
    def store(self) -> str:
        return f"sqlite:{self.folder / 'undertone.db'}"

    def serve(self) -> None:
        """Starts the server and waits until it serves."""
        settings = {
            "grpc-address": "127.0.0.1:0", "http-address": "127.0.0.1:0", "log-format": "json",
            # As many streams as are asked for, whatever else the machine does.
            "max-load": "0", "max-engine-lag": "0s", "max-worker-delay": "0s",
            "tls-certificate": self.certificate, "tls-key": self.key, "identities": self.identities,
            "escalation-store": self.store, "delivery": self.folder / "delivery.yaml",
            "idle-timeout": f"{IDLE_S}s", "config-timeout": f"{PREFACE_S}s", "send-timeout": f"{UNREAD_S}s",
            "preface-timeout": f"{PREFACE_S}s", "handshake-timeout": f"{PREFACE_S}s",
            "keepalive-interval": f"{PING_S}s", "keepalive-timeout": f"{PING_S}s",
            "resume-window": f"{RESUME_S}s", "census-interval": "1s",
        }  # fmt: skip
        flags = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
        environment = {**os.environ, "SOAK_SECRET": self.webhook_secret}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([self.binary, "serve", *flags], stderr=log, env=environment)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.lines():
                fields = line.get("fields", {})
                if fields.get("message") == "serving":
                    self.grpc_port, self.http_port = (
                        int(fields[port].rsplit(":", 1)[1]) for port in ("grpc", "http")
                    )
                    return
            time.sleep(0.1)
        raise SystemExit(f"soak: the server does not serve:\n{self.log.read_text()}")

    def lines(self) -> list[dict]:
        """The log so far; a line that is being written is left out."""
        whole = self.log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in whole if line.endswith("\n")]

    @property
    def target(self) -> str:
        return f"https://localhost:{self.grpc_port}"

    def metrics_flags(self) -> list[str]:
        """Where `undertone bench` reads the server's numbers."""
        return ["--metrics", f"https://localhost:{self.http_port}/metrics"]

    def get(self, path: str) -> str:
        """What the HTTP port has there."""
        request = urllib.request.Request(
            f"https://localhost:{self.http_port}{path}", headers={"authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=20, context=self.tls) as answer:
            return answer.read().decode()

    def stop(self) -> int | None:
        """Ends the server as an operator does; its exit code, or none if it had to be killed."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
