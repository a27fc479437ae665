"""The real binary over TLS with a token, as a user of grpcio would write it."""

import json
import os
import signal
import subprocess

import grpc
import pytest
from google.rpc import error_details_pb2
from test_stream import CALM, TIMEOUT_S, api, refused, requests, speech  # noqa: F401  (`api` is a fixture)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A certificate for this machine, a token, and a file of identities that knows it."""
    folder = tmp_path_factory.mktemp("site")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=a test", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", key, "-out", certificate,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    made = subprocess.run(
        [os.environ["UNDERTONE_BIN"], "identities", "token"], check=True, capture_output=True, text=True
    )
    identities = folder / "identities.yaml"
    line = made.stderr.splitlines()[-1].strip()
    identities.write_text(
        "schema: undertone.identities/v1\n"
        "identities:\n  - name: python\n    roles: [stream]\n    tokens:\n      " + line + "\n"
    )
    return certificate, key, identities, made.stdout.strip()


@pytest.fixture(scope="module")
def address(site):
    certificate, key, identities, _ = site
    process = subprocess.Popen(
        [
            os.environ["UNDERTONE_BIN"], "serve", "--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0",
            "--log-format", "json", "--max-realtime-factor", "0", "--escalation-store", "",
            "--tls-certificate", certificate, "--tls-key", key, "--identities", identities,
            *CALM,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        log = []
        for line in process.stderr:
            log.append(line)
            fields = json.loads(line)["fields"]
            if fields.get("message") == "serving":
                break
        else:
            pytest.fail("the server does not serve: " + "".join(log))
        yield "localhost:" + fields["grpc"].rsplit(":", 1)[1]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
    finally:
        process.kill()


def test_a_stream_over_tls_with_a_token(api, address, site):  # noqa: F811
    _, service, stubs = api
    certificate, _, _, token = site
    channel_credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(certificate.read_bytes()), grpc.access_token_call_credentials(token)
    )
    with grpc.secure_channel(address, channel_credentials) as channel:
        stub = stubs.EmotionServiceStub(channel)
        responses = list(stub.StreamEmotion(requests(service, speech(2.0)), timeout=TIMEOUT_S))
        assert responses[-1].HasField("finished")
        code, details = refused([stub.AnalyzeAudio(service.AnalyzeAudioRequest(), timeout=TIMEOUT_S)] for _ in [0])
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert details[error_details_pb2.ErrorInfo].reason == "ROLE_MISSING"


def test_without_a_token_a_call_says_what_is_missing(api, address, site):  # noqa: F811
    _, service, stubs = api
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(site[0].read_bytes())) as channel:
        stub = stubs.EmotionServiceStub(channel)
        code, details = refused(stub.StreamEmotion(requests(service, speech(0.2)), timeout=TIMEOUT_S))
        assert code == grpc.StatusCode.UNAUTHENTICATED
        assert details[error_details_pb2.ErrorInfo].reason == "TOKEN_MISSING"
