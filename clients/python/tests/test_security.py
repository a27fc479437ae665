"""Who calls, over what, and to whom a token is never told."""

from __future__ import annotations

import subprocess

import pytest
from server import PATIENCE_S, Server, binary, hello

from undertone import (
    ConnectionFailed,
    Finished,
    InvalidRequest,
    PermissionDenied,
    SyncUndertone,
    Unauthenticated,
    Undertone,
    sources,
)
from undertone._target import Credentials, Target


def certificate(folder, name: str, *more: str):
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:FALSE", *more,
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt",
        ],
        check=True, capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    return folder / f"{name}.crt"


class Site:
    def __init__(self, folder) -> None:
        self.folder = folder
        self.ca = certificate(folder, "server", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        self.other = certificate(folder, "other", "-addext", "subjectAltName=DNS:localhost")
        self.station = certificate(folder, "station")
        made = subprocess.run([binary(), "identities", "token"], check=True, capture_output=True, text=True)
        self.token = made.stdout.strip()
        (folder / "identities.yaml").write_text(
            "schema: undertone.identities/v1\nidentities:\n"
            "  - name: app\n    roles: [stream]\n    tokens:\n      " + made.stderr.splitlines()[-1].strip() + "\n"
            "  - name: station\n    roles: [stream, analyze]\n    certificates: [{common_name: station}]\n"
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"))
    folder = site.folder
    with Server(
        "--escalation-store", "", "--tls-certificate", site.ca, "--tls-key", folder / "server.key",
        "--tls-client-ca", site.station, "--tls-client-auth", "optional", "--identities", folder / "identities.yaml",
    ) as server:  # fmt: skip
        site.target = f"https://localhost:{server.port}"
        site.port = server.port
        yield site


async def test_a_stream_over_tls_with_a_token(site):
    async with Undertone(site.target, ca=site.ca, token=site.token) as u:
        events = [event async for event in u.stream(sources.from_bytes(hello()))]
        assert isinstance(events[-1], Finished)
        with pytest.raises(PermissionDenied, match="ROLE_MISSING"):
            await u.analyze(b"x")


def test_the_same_in_a_plain_thread(site):
    with SyncUndertone(site.target, ca=str(site.ca), token=site.token + "\n") as u:
        assert isinstance(list(u.stream(sources.from_bytes(hello())))[-1], Finished)


async def test_the_environment_says_it_too(site, monkeypatch):
    monkeypatch.setenv("UNDERTONE_TARGET", f"https://127.0.0.1:{site.port}")
    monkeypatch.setenv("UNDERTONE_CA", str(site.ca))
    monkeypatch.setenv("UNDERTONE_TOKEN", site.token)
    monkeypatch.setenv("UNDERTONE_SERVER_NAME", "localhost")
    async with Undertone() as u:
        assert await u.models()


async def test_a_client_certificate_says_who_calls(site):
    key = (site.folder / "station.key").read_bytes()
    async with Undertone(site.target, ca=site.ca.read_bytes(), client_certificate=site.station, client_key=key) as u:
        assert await u.models()


async def test_a_token_may_be_renewed(site):
    tokens = iter(["ut_old", site.token])
    async with Undertone(site.target, ca=site.ca, token=lambda: next(tokens)) as u:
        with pytest.raises(Unauthenticated):
            await u.models()
        assert await u.models()


async def test_what_gives_tokens_may_fail(site):
    def broken() -> str:
        raise OSError("the vault is sealed")

    async with Undertone(site.target, ca=site.ca, token=broken) as u:
        with pytest.raises(OSError, match="sealed"):
            await u.models()
        with pytest.raises(OSError, match="sealed"):
            await u.open().__aenter__()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, Unauthenticated, "TOKEN_MISSING"),
        ({}, Unauthenticated, "token="),
        ({"token": "ut_wrong"}, Unauthenticated, "TOKEN_UNKNOWN"),
        ({"ca": "other"}, ConnectionFailed, "ca="),
        ({"server_name": "elsewhere.example"}, ConnectionFailed, "server_name="),
    ],
)
async def test_what_is_wrong_is_said_with_what_to_do(site, options, error, words):
    settings = {"ca": site.ca, **options}
    if settings["ca"] == "other":
        settings["ca"] = site.other
    async with Undertone(site.target, **settings) as u:
        with pytest.raises(error, match=words) as caught:
            await u.open().__aenter__()
        assert "ut_wrong" not in str(caught.value)


async def test_a_server_with_tls_called_without_and_the_other_way_round(site, target):
    async with Undertone(f"http://localhost:{site.port}") as u:
        with pytest.raises(ConnectionFailed, match="https://"):
            await u.models()
    async with Undertone(f"https://{target}", ca=site.ca) as u:
        with pytest.raises(ConnectionFailed, match="http://"):
            await u.models()


def metadata(target: str, token: str) -> tuple[tuple[str, str], ...]:
    nothing = {"ca": None, "client_certificate": None, "client_key": None, "server_name": None}
    return Credentials(Target(target), token=token, **nothing).metadata()


@pytest.mark.parametrize(
    "target", ["https://example.org", "localhost", "http://127.0.0.1:1", "http://[::1]:1", "127.8.8.8"]
)
def test_a_token_goes_where_nobody_reads_it_on_the_way(target):
    assert metadata(target, "ut_secret\n") == (("authorization", "Bearer ut_secret"),)


@pytest.mark.parametrize("target", ["http://10.0.0.7", "example.org:50051", "http://localhost.example.org", "0.0.0.0"])
def test_and_nowhere_else(target):
    with pytest.raises(InvalidRequest, match="https://") as caught:
        Undertone(target, token="ut_secret")
    assert "ut_secret" not in str(caught.value)
    with pytest.raises(InvalidRequest):
        Undertone(target, token=lambda: "ut_secret")


def test_the_token_of_the_environment_goes_nowhere_else_either(monkeypatch):
    monkeypatch.setenv("UNDERTONE_TOKEN", "ut_secret")
    with pytest.raises(InvalidRequest, match="token"):
        Undertone("http://10.0.0.7")


@pytest.mark.parametrize("token", ["", "\n", "two words", "a\tb", "\u00e9", "a\nb"])
def test_a_token_is_one_word(token):
    with pytest.raises(InvalidRequest, match="one word"):
        Undertone("localhost", token=token)


@pytest.mark.parametrize(
    ("typed", "full"),
    [
        ("localhost", "http://localhost:50051"),
        ("localhost:1234", "http://localhost:1234"),
        ("http://10.0.0.7", "http://10.0.0.7:50051"),
        ("http://10.0.0.7/", "http://10.0.0.7:50051"),
        ("[::1]:50051", "http://[::1]:50051"),
        ("https://LOCALHOST", "https://localhost:50051"),
    ],
)
def test_a_target_may_be_typed_short(typed, full):
    assert str(Target(typed)) == full


@pytest.mark.parametrize(
    "typed",
    [
        "ftp://localhost",
        "http://",
        "two words",
        "unix:///tmp/socket",
        "localhost:x",
        "localhost:99999",
        "http://a/b",
        "http://me@a",
    ],
)
def test_a_target_that_cannot_be_used_says_so(typed):
    with pytest.raises(InvalidRequest) as caught:
        Undertone(typed)
    assert caught.value.fields[0][0] == "target"
    assert "localhost:50051" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"ca": "a.crt"}, "ca"),
        ({"server_name": "a"}, "server_name"),
        ({"client_certificate": "a", "client_key": "b"}, "client_certificate"),
        ({"target": "https://localhost", "client_certificate": "a"}, "client_key"),
        ({"target": "https://localhost", "client_key": "a"}, "client_certificate"),
        ({"target": "https://localhost", "ca": "not there.crt"}, "ca"),
    ],
)
def test_credentials_that_do_not_go_together_name_their_field(options, field):
    with pytest.raises(InvalidRequest) as caught:
        Undertone(**options)
    assert caught.value.fields[0][0] == field
