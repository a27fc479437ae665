"""Tries a container image out as Kubernetes would run it: with runc, as nobody in particular, on a root that is read-only, with no
capability, in a network of its own that reaches nothing and is reached by nothing.

    python3 deploy/try-image.py ROOT IMAGE.json WORK SOUND.wav

ROOT is the image's unpacked root, IMAGE.json what `buildah inspect --type image` says of it, WORK a folder for what the trial needs.
Every claim is printed as it is found true; the first that is not ends the trial with 1.
"""

import json
import os
import pathlib
import stat
import subprocess
import sys
import time

USER = 65532
# Longest waits, in seconds: a container that has not answered by then never will.
START_S, END_S, COMMAND_S = 30, 30, 60
BINARY = "/usr/bin/undertone"
STORE = "/var/lib/undertone"
SECRETS = "/etc/undertone"


def claim(holds, what, seen=""):
    """Says what holds, or ends the trial."""
    if not holds:
        sys.exit(f"NOT TRUE: {what}\n{seen}")
    print(f"  {what}", flush=True)


def run(*command, **options):
    """A command's outcome, with both of its outputs as text."""
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, **options)


class Image:
    """What an image asks of whoever runs it."""

    def __init__(self, root, inspected):
        self.root = pathlib.Path(root)
        self.config = json.loads(pathlib.Path(inspected).read_text())["Docker"]["config"]

    def check(self):
        config = self.config
        claim(config["User"] == f"{USER}:{USER}", f"it runs as {config['User']}: a number, not root")
        claim(config.get("StopSignal") == "SIGTERM", "it is stopped by SIGTERM")
        claim(config["Healthcheck"]["Test"] == ["CMD", BINARY, "health"], "its health check needs no shell")
        claim(set(config["ExposedPorts"]) == {"50051/tcp", "9464/tcp"}, "its ports are documented")
        claim(set(config["Volumes"]) == {STORE}, f"it writes to {STORE} alone")
        labels = {label.rpartition(".")[2]: value for label, value in config["Labels"].items()}
        claim({"title", "version", "revision", "licenses"} <= set(labels), f"it is labelled: {labels['version']}")
        self.check_files()

    def check_files(self):
        files = [path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink()]
        names = {f"/{path.relative_to(self.root)}" for path in files}
        programs = sorted(
            name for name, path in zip(sorted(names), sorted(files), strict=True)
            if path.stat().st_mode & 0o111 and ".so" not in path.name
        )  # fmt: skip
        claim(programs == [BINARY], f"there is one program and no shell: {programs}", programs)
        bits = [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
        claim(not bits, "nothing in it is set-user-id", bits)
        owned = [path for path in self.root.rglob("*") if path.lstat().st_uid == USER]
        claim([str(path) for path in owned] == [f"{self.root}{STORE}"], "its user owns the store's folder alone", owned)
        for licence in [
            "usr/share/doc/undertone/LICENSE",
            "usr/share/doc/undertone/crates-LICENSES.txt",
            "usr/share/doc/undertone/onnxruntime-ThirdPartyNotices.txt",
            "usr/share/doc/undertone/undertone-four-LICENSE.md",
            "usr/share/doc/libc6/copyright",
            "usr/share/doc/libstdc++6/copyright",
        ]:
            claim((self.root / licence).stat().st_size > 100, f"licence: /{licence}")
        bundle = (self.root / "etc/ssl/certs/ca-certificates.crt").read_text()
        claim(bundle.count("BEGIN CERTIFICATE") > 100, "it has root certificates")
        left = [name for name in names if name.endswith((".toml", "pip.conf", ".creds", ".key"))]
        claim(not left, "no configuration of the build is left in it", left)


class Container:
    """A container of the image; `runc` runs it."""

    def __init__(self, image, work, name, args=(), env=(), mounts=()):
        self.name = f"undertone-trial-{os.getpid()}-{name}"
        self.bundle = pathlib.Path(work) / name
        self.bundle.mkdir()
        subprocess.run(["runc", "spec", "--bundle", self.bundle], check=True)
        spec = json.loads((self.bundle / "config.json").read_text())
        config = image.config
        process = spec["process"]
        process.update(
            args=config["Entrypoint"] + (list(args) or config["Cmd"]),
            env=config["Env"] + list(env),
            cwd=config["WorkingDir"],
            user={"uid": USER, "gid": USER},
            terminal=False,
            noNewPrivileges=True,
            capabilities={kind: [] for kind in process["capabilities"]},
        )
        self.env = process["env"]
        spec["root"] = {"path": str(image.root), "readonly": True}
        store = ["nosuid", "nodev", "noexec", "mode=0700", f"uid={USER}", f"gid={USER}", "size=64m"]
        spec["mounts"].append({"destination": STORE, "type": "tmpfs", "source": "tmpfs", "options": store})
        for source, target in mounts:
            options = ["bind", "ro", "nosuid", "nodev"]
            spec["mounts"].append({"destination": target, "type": "bind", "source": str(source), "options": options})
        (self.bundle / "config.json").write_text(json.dumps(spec))
        self.log = self.bundle / "log"

    def __enter__(self):
        with self.log.open("w") as log:
            command = ["runc", "run", "--bundle", self.bundle, self.name]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            run("runc", "kill", self.name, "KILL")
            self.process.wait(END_S)
        run("runc", "delete", "--force", self.name)

    def said(self):
        return self.log.read_text()

    def inside(self, *command, env=()):
        """Runs a program of the image in the container."""
        return run(*self.exec(command, env))

    def begin(self, *command, env=(), out):
        """The same, without waiting for its end."""
        return subprocess.Popen(self.exec(command, env), stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def exec(self, command, env):
        flags = [flag for pair in [*self.env, *env] for flag in ("--env", pair)]
        return ["runc", "exec", *flags, self.name, *command]

    def resident_mb(self):
        """Memory of its process."""
        state = json.loads(run("runc", "state", self.name).stdout)
        status = pathlib.Path(f"/proc/{state['pid']}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1000

    def end(self):
        """Waits for the end and tells the exit code."""
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            sys.exit(f"NOT TRUE: it ends within {END_S} s\n{self.said()}")


def secrets(image, work):
    """A certificate, a token, and a file of identities that knows it, as an operator would make them."""
    folder = pathlib.Path(work) / "secrets"
    folder.mkdir()
    certificate = run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=undertone", "-addext", "basicConstraints=critical,CA:FALSE",
        "-addext", "subjectAltName=DNS:emotion.example", "-keyout", folder / "tls.key", "-out", folder / "tls.crt",
    )  # fmt: skip
    claim(certificate.returncode == 0, "openssl made a certificate", certificate.stderr)
    with Container(image, work, "token", ["identities", "token"]) as container:
        claim(container.end() == 0, "it makes a token", container.said())
        lines = container.said().splitlines()
    # The token is the only line on standard output; both outputs are in one file here.
    token = next(line for line in lines if line.startswith("ut_"))
    known = next(line for line in lines if "sha256:" in line).strip()
    (folder / "token").write_text(token)
    (folder / "identities.yaml").write_text(
        "schema: undertone.identities/v1\nidentities:\n  - name: trial\n    roles: [stream]\n    tokens:\n      "
        + known + "\n"
    )  # fmt: skip
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o755)
    return folder


def refuses_to_start_open(image, work):
    with Container(image, work, "open") as container:
        code = container.end()
        said = container.said()
    claim(code == 64, "without TLS and identities it does not start, and exits with 64", f"{code} {said}")
    claim("set tls_certificate, tls_key and identities" in said, "it says which settings are missing", said)


def healthy(container, environment):
    """Waits until the image's own health check is content; tells how long that took, in seconds."""
    began = time.monotonic()
    check = container.config_health
    while True:
        outcome = container.inside(*check, env=environment)
        if outcome.returncode == 0:
            return time.monotonic() - began, outcome
        if container.process.poll() is not None or time.monotonic() - began > START_S:
            sys.exit(f"NOT TRUE: it becomes healthy\n{outcome.stdout}{outcome.stderr}{container.said()}")
        time.sleep(0.1)


def hears(container, client, token):
    outcome = container.inside(
        BINARY, "stream", "/sound.wav", "--speed", "5", "--format", "json", "--policy", "care-call",
        "--token-file", f"{SECRETS}/token", env=client,
    )  # fmt: skip
    claim(outcome.returncode == 0, "a stream of speech over TLS, with a token, is answered", outcome.stderr)
    events = [json.loads(line) for line in outcome.stdout.splitlines()]
    kinds = {event["event"] for event in events}
    claim({"started", "estimate", "utterance", "finished"} <= kinds, f"it says {len(events)} things, estimates among them", kinds)
    claim(token not in container.said(), "the token is not in its log")
    outcome = container.inside(BINARY, "stream", "/sound.wav", "--speed", "20", "--format", "json", env=client)
    claim(outcome.returncode == 1 and "TOKEN_MISSING" in outcome.stderr, "without a token it is refused", outcome.stderr)


def drains(container, client):
    """SIGTERM in the middle of a live stream."""
    events = container.bundle / "live"
    with events.open("w") as out:
        live = container.begin(
            BINARY, "stream", "/sound.wav", "--format", "json", "--reconnect-for", "0s",
            "--token-file", f"{SECRETS}/token", env=client, out=out,
        )  # fmt: skip
        until("a stream is live", lambda: '"estimate"' in events.read_text(), events.read_text)
        began = time.monotonic()
        run("runc", "kill", container.name, "TERM")
        code = container.end()
        live.wait(END_S)
    claim(code == 0, f"after SIGTERM it ends with 0, within {time.monotonic() - began:.1f} s", container.said())
    claim('"draining"' in events.read_text(), "the live stream was told before", events.read_text())
    messages = [json.loads(line)["fields"].get("message", "") for line in container.said().splitlines()]
    claim(messages[-1] == "ended" and "draining" in messages, "its log says that it drained and ended", messages)


def until(what, holds, seen):
    """Waits for something to become true."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > START_S:
            sys.exit(f"NOT TRUE: {what}\n{seen()}")
        time.sleep(0.05)


def main():
    root, inspected, work, sound = sys.argv[1:]
    image = Image(root, inspected)
    image.check()
    refuses_to_start_open(image, work)
    folder = secrets(image, work)
    serving = [
        f"UNDERTONE_TLS_CERTIFICATE={SECRETS}/tls.crt",
        f"UNDERTONE_TLS_KEY={SECRETS}/tls.key",
        f"UNDERTONE_IDENTITIES={SECRETS}/identities.yaml",
    ]
    client = [
        "UNDERTONE_TARGET=https://127.0.0.1:50051",
        f"UNDERTONE_CA={SECRETS}/tls.crt",
        "UNDERTONE_SERVER_NAME=emotion.example",
    ]
    mounts = [(folder, SECRETS), (sound, "/sound.wav")]
    with Container(image, work, "serve", env=serving, mounts=mounts) as container:
        container.config_health = image.config["Healthcheck"]["Test"][1:]
        took, outcome = healthy(container, client)
        claim(outcome.stdout == "SERVING\n", f"its own health check is content after {took:.1f} s")
        print(f"  idle it holds {container.resident_mb():.0f} MB of memory")
        outcome = container.inside("/bin/sh", "-c", "true")
        claim(outcome.returncode != 0, "a shell cannot be run in it")
        hears(container, client, (folder / "token").read_text())
        drains(container, client)


if __name__ == "__main__":
    main()
