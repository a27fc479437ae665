"""The tools of language models, as an MCP client of the official SDK sees them: `undertone mcp` over standard input and
output, and /mcp of a running server, both with the handshake that clients have had so far and with the one of 2026."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import queue
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import wave

import anyio
import grpc
import httpx2
import jsonschema
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from test_stream import CALM, TIMEOUT_S, api  # noqa: F401  (`api` is a fixture)

ROOT = pathlib.Path(__file__).resolve().parents[2]
HELLO = ROOT / "tests" / "data" / "hello.wav"
TOOLS = {
    "analyze_audio", "list_sessions", "get_session_emotion", "get_session_history", "list_escalations",
    "explain_escalation", "acknowledge_escalation",
}  # fmt: skip
LIMITS = "not of what a person feels"
# A second without voice raises it, and it stays in force for as long as nobody speaks.
QUIET = """
schema: undertone.policy/v1
name: quiet
version: '1'
description: For tests.
rules:
  - name: quiet
    title: Nobody speaks
    severity: medium
    when: {silence: {for: 1s}}
    reason: 'no voice for {{ silence }} s'
"""


def binary():
    path = os.environ.get("UNDERTONE_BIN")
    assert path, "set UNDERTONE_BIN to the built binary, such as target/debug/undertone"
    return path


class Server:
    """A running server: its addresses, and its end."""

    def __init__(self, folder, *args, grpc_address="127.0.0.1:0"):
        self.process = subprocess.Popen(
            [
                binary(), "serve", "--grpc-address", grpc_address, "--http-address", "127.0.0.1:0",
                "--log-format", "json", "--max-realtime-factor", "0", "--idle-timeout", "10m",
                "--escalation-store", f"sqlite:{folder}/escalations.db",
                *CALM, *args,
            ],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            fields = json.loads(line)["fields"]
            if fields.get("message") == "serving":
                break
        else:
            pytest.fail("the server does not serve: " + "".join(self.log))
        self.grpc = fields["grpc"]
        self.http = f"http://{fields['http']}/mcp"
        # Nobody else reads it, and a pipe that is full would hold up the server.
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    async def says(self, words):
        """Waits until the log has these words."""
        with anyio.fail_after(TIMEOUT_S):
            while not any(words in line for line in self.log):
                await anyio.sleep(0.01)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=TIMEOUT_S)
        assert code == 0, "".join(self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Talk:
    """A stream that stays open: speech, then a silence that raises an escalation."""

    def __init__(self, api, address, session_id, token=None, **fields):
        _, service, stubs = api
        self.channel = grpc.insecure_channel(address)
        self.outbox = queue.SimpleQueue()
        metadata = [("authorization", f"Bearer {token}")] if token else []
        self.call = stubs.EmotionServiceStub(self.channel).StreamEmotion(
            iter(self.outbox.get, None), metadata=metadata, timeout=10 * TIMEOUT_S
        )
        self.session_id = session_id
        with wave.open(str(HELLO)) as wav:
            assert (wav.getsampwidth(), wav.getnchannels()) == (2, 1)
            rate, voice = wav.getframerate(), wav.readframes(wav.getnframes())
        audio = service.AudioFormat(encoding=service.AUDIO_ENCODING_LINEAR16, sample_rate_hz=rate)
        fields = {"audio": audio, "session_id": session_id, "policy_yaml": QUIET, **fields}
        self.outbox.put(service.StreamEmotionRequest(config=service.StreamConfig(**fields)))
        self.audio_s, self.escalation_id = 18, None
        samples = (voice + voice).ljust(2 * rate * self.audio_s, b"\0")
        for first in range(0, len(samples), 2 * rate):
            # Second by second, as in life: of what comes at once fewer estimates are made.
            chunk = service.AudioChunk(data=samples[first : first + 2 * rate])
            self.outbox.put(service.StreamEmotionRequest(audio=chunk))
            self.outbox.put(service.StreamEmotionRequest(mark=service.Mark(name="heard")))
            for response in self.call:
                if response.HasField("escalation") and response.escalation.kind == 1:
                    self.escalation_id = response.escalation.escalation.id
                if response.HasField("mark"):
                    break
        assert self.escalation_id, "the silence has raised nothing"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.outbox.put(None)
        self.channel.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("store")) as server:
        yield server
        server.stop()


@pytest.fixture(scope="module")
def talk(api, server):  # noqa: F811
    with Talk(api, server.grpc, "call-7", labels={"ward": "7"}) as talk:
        yield talk


@pytest.fixture(params=["stdio, legacy", "stdio, auto", "http, legacy", "http, auto"])
def way(request):
    return tuple(request.param.split(", "))


def stdio(address, *args, **env):
    parameters = StdioServerParameters(command=binary(), args=["mcp", "--target", address, *args], env=env)
    return stdio_client(parameters)


@contextlib.asynccontextmanager
async def over_http(url, token=None):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S) as requests,
        streamable_http_client(url, http_client=requests) as streams,
    ):
        yield streams


def run(server, way, work, token=None):
    """Runs `work` with a client that is connected."""
    transport, mode = way

    async def main():
        env = {"UNDERTONE_TOKEN": token} if token else {}
        to = stdio(server.grpc, **env) if transport == "stdio" else over_http(server.http, token)
        with anyio.fail_after(TIMEOUT_S):
            async with Client(to, mode=mode) as client:
                return await work(client)

    return anyio.run(main)


def text(result):
    return "\n".join(block.text for block in result.content)


async def call(client, tool, **arguments):
    """The structured content of an answer that went well; the client holds it to the tool's schema too."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    schema = next(one for one in (await client.list_tools()).tools if one.name == tool).output_schema
    jsonschema.Draft202012Validator(schema).validate(result.structured_content)
    assert text(result) == result.structured_content["words"]
    return result.structured_content


async def refused(client, tool, **arguments):
    """The text of a tool's error, and the same for programs."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, text(result)
    assert result.structured_content is None
    error = result.meta["undertone/error"]
    assert error["reason"] in text(result) and error["remedy"] in text(result)
    return error


def test_every_tool_has_schemas_and_says_whether_it_only_looks(server, way):
    async def work(client):
        assert client.server_info.name == "undertone"
        assert "Never say what a person feels" in client.instructions
        return (await client.list_tools()).tools

    tools = run(server, way, work)
    assert {tool.name for tool in tools} == TOOLS
    for tool in tools:
        for schema in (tool.input_schema, tool.output_schema):
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
        assert len(tool.description) > 100
        looks = tool.name != "acknowledge_escalation"
        assert tool.annotations.read_only_hint is looks
        assert tool.annotations.idempotent_hint is True and tool.annotations.destructive_hint is False
        has_path = "path" in tool.input_schema["properties"]
        assert has_path == (tool.name == "analyze_audio" and way[0] == "stdio")


def test_a_recording_is_judged_with_all_its_probabilities_and_limits(server, way):
    content = base64.b64encode(HELLO.read_bytes()).decode()

    async def work(client):
        inline = await call(client, "analyze_audio", content_base64=content, format_hint="wav")
        if way[0] == "stdio":
            assert await call(client, "analyze_audio", path=str(HELLO)) == inline
        else:
            error = await refused(client, "analyze_audio", path=str(HELLO))
            assert "unknown field `path`" in error["message"]
        return inline

    told = run(server, way, work)
    assert told["utterances"] and told["utterances_left_out"] == 0
    assert LIMITS in told["words"] and LIMITS in told["limits"]
    for part in [*told["channels"], *told["utterances"]]:
        sounds = part["sounds"]
        assert abs(sum(e["probability"] for e in sounds["emotions"]) - 1) < 0.01
        first = sounds["emotions"][0]
        assert sounds["abstains"] or f"{first['emotion']} with a probability of" in sounds["words"]
        assert sounds["words"] in told["words"]


def test_a_live_session_is_listed_and_read(server, talk, way):
    async def work(client):
        listed = await call(client, "list_sessions", labels={"ward": "7"})
        none = await call(client, "list_sessions", labels={"ward": "8"})
        now = await call(client, "get_session_emotion", session_id=talk.session_id)
        history = await call(client, "get_session_history", session_id=talk.session_id, max_points=3)
        return listed, none, now, history

    listed, none, now, history = run(server, way, work)
    (session,) = listed["sessions"]
    assert session["session_id"] == "call-7" and session["labels"] == {"ward": "7"} and session["ingress"] == "grpc"
    assert session["audio_s"] == talk.audio_s and session["policy"] == "quiet"
    assert session["escalation_ids"] == [talk.escalation_id] and session["severity"] == "medium"
    assert none["sessions"] == [] and "No live sessions" in none["words"]
    (latest,) = now["session"]["latest"]
    assert latest["to_s"] <= talk.audio_s and LIMITS in now["words"]
    assert talk.escalation_id in now["words"]
    (course,) = history["courses"]
    assert 1 <= len(course["points"]) <= 3
    assert sum(point["estimates"] for point in course["points"]) == course["estimates"] >= 10
    assert course["distress"]["mean"] > 0 and course["distress"]["direction"] in ("rising", "falling", "steady")
    assert history["utterances"] and f"ended in this time: {len(history['utterances'])}," in history["words"]


def test_an_escalation_is_listed_explained_and_taken_on_once(api, server, way):  # noqa: F811
    transport, mode = way
    # Each way has one of its own to take on.
    with Talk(api, server.grpc, f"taken-on-{transport}-{mode}") as own:

        async def work(client):
            listed = await call(client, "list_escalations", session_id=own.session_id, states=["raised"])
            before = await call(client, "explain_escalation", escalation_id=own.escalation_id)
            acknowledge = {"escalation_id": own.escalation_id, "note": "I call back"}
            first = await call(client, "acknowledge_escalation", actor="Ann", **acknowledge)
            second = await call(client, "acknowledge_escalation", actor="Bob", **acknowledge)
            after = await call(client, "explain_escalation", escalation_id=own.escalation_id)
            open_ones = await call(client, "list_escalations", session_id=own.session_id, states=["raised"])
            return listed, before, first, second, after, open_ones

        listed, before, first, second, after, open_ones = run(server, way, work)
    assert [one["escalation_id"] for one in listed["escalations"]] == [own.escalation_id]
    assert before["escalation"]["state"] == "raised" and before["escalation"]["acknowledged_by"] is None
    (condition,) = before["evidence"]["conditions"]
    assert condition["holds"] and f"turns on at {condition['on']:.2f}" in before["words"]
    assert "nobody has taken it on" in before["words"] and LIMITS in before["words"]
    assert first["already"] is False and first["words"].startswith("Taken on by Ann")
    assert second["already"] is True and "Ann had taken it on before" in second["words"]
    assert after["escalation"]["acknowledged_by"] == "Ann"
    happened = [one for one in after["history"] if one["kind"] == "acknowledged"]
    assert [(one["actor"], one["note"]) for one in happened] == [("Ann", "I call back")]
    assert open_ones["escalations"] == []


def test_what_cannot_be_done_says_which_field_why_and_what_to_do(server, talk, way):
    async def work(client):
        gone = await refused(client, "get_session_emotion", session_id="nobody")
        assert gone["code"] == "NOT_FOUND" and "list_sessions" in gone["remedy"]
        gone = await refused(client, "explain_escalation", escalation_id="0199a1de-0000-7000-8000-000000000000")
        assert gone["code"] == "NOT_FOUND" and "list_escalations" in gone["remedy"]
        far = await refused(client, "get_session_history", session_id=talk.session_id, minutes=1000)
        assert far["fields"][0]["name"] == "minutes" and "0.1 to 60" in far["remedy"]
        missing = await refused(client, "get_session_emotion")
        assert missing["fields"][0]["name"] == "session_id"
        noise = await refused(client, "analyze_audio", content_base64=base64.b64encode(b"no audio" * 99).decode())
        assert noise["code"] in ("INVALID_ARGUMENT", "DATA_LOSS"), noise
        nobody = await refused(client, "acknowledge_escalation", escalation_id=talk.escalation_id, actor="")
        assert nobody["fields"][0]["name"] == "actor", nobody
        # Nothing that there is: the protocol's own errors.
        with pytest.raises(MCPError, match="there is no tool"):
            await client.call_tool("sing", {})
        # And the session goes on.
        await call(client, "list_sessions")

    run(server, way, work)


def test_resources_are_the_same_as_the_tools_tell(server, talk, way):
    async def work(client):
        listed = {str(one.uri) for one in (await client.list_resources()).resources}
        assert listed == {"undertone://sessions", "undertone://models", "undertone://policies"}
        templates = {one.uri_template for one in (await client.list_resource_templates()).resource_templates}
        assert templates == {"undertone://sessions/{id}{?tenant}", "undertone://escalations/{id}"}

        async def read(uri):
            (content,) = (await client.read_resource(uri)).contents
            assert content.mime_type == "application/json"
            return json.loads(content.text)

        models = await read("undertone://models")
        assert models["models"][0]["is_default"] and models["models"][0]["figures"]
        assert models["models"][0]["training_data"][0]["licence"]
        assert "care-call" in {policy["name"] for policy in (await read("undertone://policies"))["policies"]}
        sessions = await read("undertone://sessions")
        assert talk.session_id in {session["session_id"] for session in sessions["sessions"]}
        session = await read(f"undertone://sessions/{talk.session_id}?tenant=default")
        assert session["session"]["session_id"] == talk.session_id and session["courses"]
        told = await call(client, "explain_escalation", escalation_id=talk.escalation_id)
        escalation = await read(f"undertone://escalations/{talk.escalation_id}")
        assert escalation["escalation"]["escalation_id"] == told["escalation"]["escalation_id"]
        for wrong in ["undertone://sessions/nobody", "undertone://secrets"]:
            with pytest.raises(MCPError, match="remedy"):
                await read(wrong)

    run(server, way, work)


def test_prompts_put_in_what_is_heard_and_its_limits(server, talk, way):
    async def work(client):
        prompts = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
        assert set(prompts) == {"handover_note", "speak_with_care"}
        for name, prompt in prompts.items():
            required = [argument.name for argument in prompt.arguments if argument.required]
            assert required == ["session_id"]
            (message,) = (await client.get_prompt(name, {"session_id": talk.session_id})).messages
            assert message.role == "user"
            for part in [talk.session_id, talk.escalation_id, "no voice for", "is an instruction", LIMITS]:
                assert part in message.content.text, (part, message.content.text)
            with pytest.raises(MCPError, match="session_id"):
                await client.get_prompt(name, {})
            with pytest.raises(MCPError, match="NOT_FOUND"):
                await client.get_prompt(name, {"session_id": "nobody"})

    run(server, way, work)


# --- who calls ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A server that knows who calls, and the callers' tokens."""
    folder = tmp_path_factory.mktemp("known")
    lines, tokens = ["schema: undertone.identities/v1", "identities:"], {}
    for name, tenant, roles in [
        ("agent", "ward-7", "[stream]"),
        ("nurse", "ward-7", "[watch, acknowledge]"),
        ("stranger", "ward-8", "[watch, acknowledge, analyze]"),
    ]:
        made = subprocess.run([binary(), "identities", "token"], check=True, capture_output=True, text=True)
        tokens[name] = made.stdout.strip()
        lines += [f"  - name: {name}", f"    tenant: {tenant}", f"    roles: {roles}", "    tokens:"]
        lines += ["      " + made.stderr.splitlines()[-1].strip()]
    (folder / "identities.yaml").write_text("\n".join(lines) + "\n")
    with Server(folder, "--identities", str(folder / "identities.yaml")) as server:
        yield server, tokens
        server.stop()


def post(url, body, **headers):
    """Status, headers and body of the answer."""
    headers = {
        "content-type": "application/json", "accept": "application/json, text/event-stream",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }  # fmt: skip
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


PING = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()


def test_over_http_nobody_gets_in_without_a_token(known):
    server, tokens = known
    for headers in [{}, {"authorization": "Bearer ut_wrong"}]:
        status, answered, body = post(server.http, PING, **headers)
        assert (status, answered["www-authenticate"]) == (401, "Bearer") and "TOKEN_" in body
    assert post(server.http, PING, authorization=f"Bearer {tokens['nurse']}")[0] == 200


def test_over_stdio_a_call_without_a_token_is_a_tools_error(known):
    server, _ = known

    async def work(client):
        error = await refused(client, "list_sessions")
        assert error["reason"] == "TOKEN_MISSING" and "UNDERTONE_TOKEN" in error["remedy"]

    run(server, ("stdio", "legacy"), work)


def test_roles_and_tenants_hold_for_tools_as_for_calls(api, known, way):  # noqa: F811
    server, tokens = known
    with Talk(api, server.grpc, f"private-{'-'.join(way)}", token=tokens["agent"]) as own:

        async def without_role(client):
            error = await refused(client, "list_sessions")
            assert (error["code"], error["reason"]) == ("PERMISSION_DENIED", "ROLE_MISSING")
            assert "watch" in error["message"] and "the role" in error["remedy"]
            # Who is known may see the models.
            assert (await client.read_resource("undertone://models")).contents

        async def colleague(client):
            (session,) = (await call(client, "list_sessions"))["sessions"]
            assert (session["session_id"], session["tenant"]) == (own.session_id, "ward-7")
            error = await refused(client, "analyze_audio", content_base64="AAAA")
            assert error["reason"] == "ROLE_MISSING" and "analyze" in error["message"]
            await call(client, "acknowledge_escalation", escalation_id=own.escalation_id, actor="Ann")

        async def stranger(client):
            assert (await call(client, "list_sessions"))["sessions"] == []
            assert (await call(client, "list_escalations"))["escalations"] == []
            for tenant in [None, "ward-7"]:
                error = await refused(client, "get_session_history", session_id=own.session_id, tenant=tenant)
                assert error["code"] in ("NOT_FOUND", "PERMISSION_DENIED"), error
            error = await refused(client, "explain_escalation", escalation_id=own.escalation_id)
            assert error["code"] == "NOT_FOUND"
            error = await refused(client, "acknowledge_escalation", escalation_id=own.escalation_id, actor="Eve")
            assert error["code"] == "NOT_FOUND"

        run(server, way, without_role, tokens["agent"])
        run(server, way, colleague, tokens["nurse"])
        run(server, way, stranger, tokens["stranger"])


# --- the transport -----------------------------------------------------------------------------


def test_pages_in_browsers_get_nowhere(server):
    assert post(server.http, PING)[0] == 200
    # A name that somebody else has made to lead here.
    assert post(server.http, PING, host="rebound.example")[0] == 403
    assert post(server.http, PING, origin="https://page.example")[0] == 403
    assert post(server.http, PING, origin="null")[0] == 403
    assert post(server.http, PING, origin="http://localhost:6274")[0] == 403
    # A page of this very server.
    assert post(server.http, PING, origin=server.http.removesuffix("/mcp"))[0] == 200


def test_messages_over_http_are_bounded(server):
    # It says so before it is sent any of it.
    address = urllib.parse.urlsplit(server.http).netloc
    for length in [12 << 20, 1 << 60]:
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
        connection.putrequest("POST", "/mcp")
        connection.putheader("content-length", str(length))
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413 and b"at most" in answer.read()
        connection.close()
    for method in ["GET", "DELETE", "OPTIONS"]:
        request = urllib.request.Request(server.http, method=method, headers={"accept": "text/event-stream"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=TIMEOUT_S)
        assert caught.value.code in (400, 405)


def test_it_can_be_turned_off_and_called_by_other_names(tmp_path):
    with Server(tmp_path, "--mcp", "false") as server:
        assert post(server.http, PING)[0] == 404
        server.stop()
    with Server(tmp_path, "--allowed-origins", "https://emotion.example") as server:
        assert post(server.http, PING, host="emotion.example")[0] == 200
        assert post(server.http, PING, host="emotion.example", origin="https://emotion.example")[0] == 200
        assert post(server.http, PING, host="other.example")[0] == 403
        server.stop()


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_server_that_ends_is_not_held_up_by_mcp_clients(tmp_path, mode):
    with Server(tmp_path, "--drain-deadline", "30s") as server:

        async def work(client):
            await call(client, "list_sessions")
            # The client's connection is still open.
            with anyio.fail_after(10):
                await anyio.to_thread.run_sync(server.stop)

        run(server, ("http", mode), work)


def test_a_server_that_ends_is_not_held_up_by_half_a_message(tmp_path):
    with Server(tmp_path, "--drain-deadline", "30s") as server:
        host, port = urllib.parse.urlsplit(server.http).netloc.split(":")
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as half:
            half.sendall(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
            # Whoever comes later is answered, so the half is there.
            assert post(server.http, PING)[0] == 200
            began = time.monotonic()
            server.stop()
            assert time.monotonic() - began < 10


def test_a_call_that_is_under_way_is_heard_out_when_the_server_ends(api, tmp_path):  # noqa: F811
    args = ["--drain-deadline", "30s", "--log", "info,rmcp=debug"]
    with Server(tmp_path, *args) as server:
        with Talk(api, server.grpc, "the-last") as last:
            pass
        # As long as somebody else writes, an acknowledgement waits.
        other = sqlite3.connect(tmp_path / "escalations.db", isolation_level=None, timeout=TIMEOUT_S)
        other.execute("BEGIN IMMEDIATE")

        async def work(client):
            answers = []

            async def acknowledge():
                arguments = {"escalation_id": last.escalation_id, "actor": "Ann"}
                answers.append(await client.call_tool("acknowledge_escalation", arguments))

            # The client asks for the schema once: the call is the last thing that it asks for.
            await client.list_tools()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(acknowledge)
                # The list of tools has its name, too.
                await server.says("CallToolRequest")
                server.process.send_signal(signal.SIGTERM)
                await server.says('"draining"')
                other.execute("ROLLBACK")
            return answers

        (answer,) = run(server, ("http", "auto"), work)
        other.close()
        assert not answer.is_error and text(answer).startswith("Taken on by Ann"), text(answer)
        assert server.process.wait(timeout=TIMEOUT_S) == 0


def free_address():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{held.getsockname()[1]}"


def test_over_stdio_the_server_may_come_and_go(tmp_path):
    address = free_address()

    async def main():
        with anyio.fail_after(TIMEOUT_S):
            async with Client(stdio(address)) as client:
                # There are tools, and none of them can do anything.
                assert len((await client.list_tools()).tools) == len(TOOLS)
                for _ in range(2):
                    error = await refused(client, "list_sessions")
                    assert error["code"] == "UNAVAILABLE" and "refused" in error["message"], error
                    assert "undertone serve" in error["remedy"]
                    with await anyio.to_thread.run_sync(lambda: Server(tmp_path, grpc_address=address)) as server:
                        await call(client, "list_sessions")
                        await anyio.to_thread.run_sync(server.stop)

    anyio.run(main)


def lines(*messages):
    return "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages)


HANDSHAKE = lines(
    {
        "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a test", "version": "1"},
        },
    },
    {"method": "notifications/initialized"},
)  # fmt: skip


def begin(*args):
    return subprocess.Popen(
        [binary(), "mcp", *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_nothing_but_the_protocol_is_written_and_the_end_of_the_input_is_the_end(server):
    calls = lines(
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "list_sessions", "arguments": {}}},
        {"id": 4, "method": "no/such"},
    )
    process = begin("--target", server.grpc)
    out, err = process.communicate(HANDSHAKE + calls, timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)
    assert {answer["id"] for answer in answers} == {1, 2, 3, 4}
    assert err == ""
    # Also before anybody has said anything.
    process = begin("--target", server.grpc)
    assert process.communicate("", timeout=TIMEOUT_S) == ("", "") and process.returncode == 0


def test_it_ends_when_it_is_told_to(server):
    process = begin("--target", server.grpc)
    process.stdin.write(HANDSHAKE)
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0, process.stderr.read()


def test_files_are_read_where_they_may_be_and_no_further(server, tmp_path):
    (tmp_path / "own.wav").write_bytes(HELLO.read_bytes())

    async def main():
        with anyio.fail_after(TIMEOUT_S):
            async with Client(
                stdio(server.grpc, "--files-below", str(tmp_path), "--max-clip-bytes", "2000000")
            ) as client:
                assert (await call(client, "analyze_audio", path=str(tmp_path / "own.wav")))["audio_s"] > 0
                error = await refused(client, "analyze_audio", path=str(HELLO))
                assert str(tmp_path) in error["remedy"]
                (tmp_path / "long.wav").write_bytes(bytes(2_000_001))
                error = await refused(client, "analyze_audio", path=str(tmp_path / "long.wav"))
                assert "--max-clip-bytes" in error["remedy"]

    anyio.run(main)


def test_bad_credentials_are_told_before_anything_is_served(tmp_path):
    process = begin("--target", "http://192.0.2.1:50051", "--token-file", str(tmp_path / "none"))
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1 and out == "" and "--token-file" in err
