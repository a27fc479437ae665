"""What sinks send, read by the libraries that receivers use: `standardwebhooks`, `cloudevents` and
`fhir.resources`. The real binary sends samples to a server in this process; its path is in the
environment variable UNDERTONE_BIN."""

import http.server
import os
import subprocess
import threading

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from fhir.resources.R4B.bundle import Bundle
from standardwebhooks import Webhook, WebhookVerificationError

TIMEOUT_S = 60
EVENTS = ["raised", "updated", "acknowledged", "cleared"]
# Examples of the Standard Webhooks project, known to everybody.
CURRENT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FORMER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
FOREIGN = "whsec_" + "A" * 32

DELIVERY = """
schema: undertone.delivery/v1
sinks:
  - name: webhook
    webhook: {url: "URL/hook", secrets: [{env: CURRENT}, {env: FORMER}], allow_private: true}
    text: "{{ kind }}: {{ escalation.title }} – Müller"
  - name: structured
    cloudevents: {url: "URL/events", allow_private: true}
  - name: binary
    cloudevents: {url: "URL/events", mode: binary, source: /wards/7, allow_private: true}
  - name: fhir
    fhir: {url: "URL/r4", allow_private: true}
  - name: fhir-identifiers
    fhir:
      url: "URL/r4"
      patient_system: urn:oid:1.2.3
      encounter_system: urn:oid:1.2.4
      allow_private: true
  - name: fhir-nobody
    fhir: {url: "URL/r4", patient_label: nobody, without_patient: display, allow_private: true}
"""


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((dict(self.headers.items()), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def receiver():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def send(receiver, tmp_path_factory):
    """Sends a sample of an event to a sink; the headers and the body that arrived."""
    binary = os.environ.get("UNDERTONE_BIN")
    assert binary, "set UNDERTONE_BIN to the built binary, such as target/debug/undertone"
    path = tmp_path_factory.mktemp("delivery") / "delivery.yaml"
    path.write_text(DELIVERY.replace("URL", f"http://127.0.0.1:{receiver.server_port}"), encoding="utf-8")

    def send(sink, event, *arguments):
        receiver.seen.clear()
        done = subprocess.run(
            [binary, "delivery", "sample", str(path), "--sink", sink, "--event", event, "--send", *arguments],
            capture_output=True, text=True, timeout=TIMEOUT_S,
            env={**os.environ, "CURRENT": CURRENT, "FORMER": FORMER},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (request,) = receiver.seen
        return request

    return send


@pytest.mark.parametrize("event", EVENTS)
def test_standardwebhooks_verifies_requests_with_either_secret(send, event):
    headers, body = send("webhook", event)
    for secret in (CURRENT, FORMER):
        payload = Webhook(secret).verify(body, headers)
        assert payload["type"] == f"escalation.{event}"
        assert payload["data"]["id"] == headers["webhook-id"]
        assert payload["data"]["text"] == f"{event}: Sustained distress – Müller"


def test_standardwebhooks_refuses_another_secret_and_a_changed_body(send):
    headers, body = send("webhook", "raised")
    with pytest.raises(WebhookVerificationError):
        Webhook(FOREIGN).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(CURRENT).verify(body.replace(b"high", b"low"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(CURRENT).verify(body, {**headers, "webhook-id": "another"})


@pytest.mark.parametrize("event", EVENTS)
def test_cloudevents_reads_both_modes_alike(send, event):
    session = ["--session", f"test-{event}"]
    events = {}
    for mode in ("structured", "binary"):
        headers, body = send(mode, event, *session)
        headers = {name.lower(): value for name, value in headers.items()}
        events[mode] = from_http_event(HTTPMessage(headers, body))
    for mode, source in (("structured", "undertone"), ("binary", "/wards/7")):
        read = events[mode]
        assert read.get_specversion() == "1.0"
        assert read.get_source() == source
        assert read.get_type() == f"dev.undertone.escalation.{event}.v1"
        assert read.get_datacontenttype() == "application/json"
        assert read.get_data()["id"] == read.get_id()
        assert read.get_data()["escalation"]["id"] == read.get_subject()
        assert read.get_time() is not None
    # The same event: the two were sent at different times, and that is all that tells them apart.
    assert events["structured"].get_id() == events["binary"].get_id()
    assert events["structured"].get_data().keys() == events["binary"].get_data().keys()


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("sink", ["fhir", "fhir-identifiers", "fhir-nobody"])
def test_fhir_resources_validates_bundles(send, sink, event):
    """Against R4B (4.3.0), the nearest that the library has to R4 (4.0.1): the elements of Communication,
    Observation and Bundle that are used are the same in both. A field that it does not know is an error."""
    headers, body = send(sink, event)
    assert headers["content-type"] == "application/fhir+json"
    bundle = Bundle.model_validate_json(body)
    assert bundle.type == "transaction"
    resources = [entry.resource for entry in bundle.entry]
    kinds = [resource.get_resource_type() for resource in resources]
    assert kinds == (["Communication"] if event == "acknowledged" else ["Communication", "Observation"])
    communication = resources[0]
    assert communication.status == "completed"
    assert communication.priority == "stat"
    assert bool(communication.inResponseTo) == (event != "raised")
    for entry in bundle.entry:
        identifier = entry.resource.identifier[0]
        assert entry.request.ifNoneExist == f"identifier={identifier.system}|{identifier.value}"
