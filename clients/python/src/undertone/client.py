"""The client: everything that a server of Undertone can be asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType

from typing_extensions import Self, Unpack

from . import _config, _filter, _wire
from ._calls import ask, follow
from ._channels import Channels
from ._config import StreamOptions, VoiceActivity
from ._filter import EscalationFilter
from ._generated.undertone.v1 import emotion_service_pb2, escalation_service_pb2, session_service_pb2
from ._target import Credentials, Pem, Target, Token
from .audio import AudioFormat, ChannelMode
from .errors import UndertoneError
from .escalations import Acknowledgement, Escalation, EscalationDetail
from .events import Analysis, Estimate, Event, Utterance
from .models import Model, Policy
from .reconnect import Reconnect
from .sessions import Session, SessionDetail
from .sources import Source, chunks
from .stream import Stream
from .watch import EscalationWatch

# What is listed comes in pages of so many.
_PAGE = 100


class Undertone:
    """A client of one server, or of a balancer before many. Use it with `async with`, in one event loop.

    >>> import asyncio
    >>> from undertone import Undertone
    >>> async def main():
    ...     async with Undertone("localhost:50051") as u:
    ...         return [model.name for model in await u.models()]
    >>> asyncio.run(main())
    ['undertone-four']
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: Token | None = None,
        ca: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
        server_name: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Connects to nothing yet.

        Args:
            target: `localhost`, `localhost:50051`, `http://...` or `https://...`; else `UNDERTONE_TARGET`, else
                `localhost:50051`.
            token: Says who calls; a function is asked for each call, so that a token may be renewed. Else
                `UNDERTONE_TOKEN`. Sent over https:// only, or to this machine.
            ca: PEM with the authorities that the server's certificate may be of, a path or its bytes; else
                `UNDERTONE_CA`, else those that gRPC brings.
            client_certificate: PEM with a certificate that says who calls, a path or its bytes.
            client_key: PEM with its private key.
            server_name: Name that the server's certificate must bear, where it is not the target's; else
                `UNDERTONE_SERVER_NAME`.
            timeout: Seconds that an answer may take, and the opening of a stream.

        Raises:
            InvalidRequest: An argument cannot be used, or the token could be read on the way.
        """
        where = Target(target or os.environ.get("UNDERTONE_TARGET") or "localhost")
        credentials = Credentials(
            where,
            token=token,
            ca=ca,
            client_certificate=client_certificate,
            client_key=client_key,
            server_name=server_name,
        )
        self._channels = Channels(where, credentials)
        self._timeout = timeout
        self._streams: set[Stream] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Breaks off what is under way and closes the connections."""
        for stream in list(self._streams):
            await stream.close()
        await self._channels.close()

    def open(
        self,
        audio: AudioFormat | None = None,
        *,
        reconnect: Reconnect | None = Reconnect(),  # noqa: B008 (frozen)
        buffer: float = 30.0,
        **options: Unpack[StreamOptions],
    ) -> Stream:
        """A live stream to push audio into: `async with u.open(...) as stream`.

        Args:
            audio: What will be sent; 16 kHz, 16 bits and one channel unless it says otherwise.
            reconnect: How it goes on when it breaks off; `None`: not at all.
            buffer: Seconds of audio that wait to be sent at most; `send` waits when so much is there.
            options: See `StreamOptions`.

        Raises:
            InvalidRequest: Two options exclude each other. What the server refuses is raised by `async with`.
        """
        audio = audio or AudioFormat()
        config = _config.build(audio, **options)
        return Stream(self._channels, config, audio, reconnect, buffer, self._timeout, self._streams)

    async def stream(
        self,
        source: Source,
        *,
        reconnect: Reconnect | None = Reconnect(),  # noqa: B008 (frozen)
        buffer: float = 30.0,
        **options: Unpack[StreamOptions],
    ) -> AsyncGenerator[Event, None]:
        """Streams a source to its end and yields what comes back; `Started` first, `Finished` last.

        Who leaves the loop early, and wants the stream to end at once, wraps this in `contextlib.aclosing`.

        Args:
            source: The audio, see `sources`.
            reconnect: How it goes on when it breaks off; `None`: not at all.
            buffer: Seconds of audio that wait to be sent at most; the source waits when so much is there.
            options: See `StreamOptions`.

        Raises:
            UndertoneError: The server refused or broke it off. What the source raises is raised here too.
        """
        async with self.open(source.format, reconnect=reconnect, buffer=buffer, **options) as stream:
            feeding = asyncio.create_task(_feed(source, stream))
            try:
                async for event in stream:
                    yield event
            finally:
                feeding.cancel()
                await asyncio.wait([feeding])

    async def analyze(
        self,
        clip: str | os.PathLike[str] | bytes,
        *,
        model: str | None = None,
        estimate_interval: float | None = None,
        channel_mode: ChannelMode = ChannelMode.MIX,
        voice_activity: VoiceActivity | None = None,
        timeout: float = 300.0,
    ) -> Analysis:
        """Analyses one whole clip: wav, flac, ogg (Vorbis), mp3, m4a, aiff or mkv, at most 32 MiB by default.

        Args:
            clip: A file's path, or what is in it.
            model: Name of the model.
            estimate_interval: Seconds between two points of the time line, 0.1 to 10; `None`: there is none.
            channel_mode: What to do with several channels.
            voice_activity: When utterances begin and end.
            timeout: Seconds that it may take.

        Raises:
            OSError: The file cannot be read.
            UndertoneError: The server cannot do it; `DataLoss` if it cannot decode it.
        """
        content, hint = clip, ""
        if not isinstance(content, bytes):
            path = Path(content)
            content, hint = await asyncio.to_thread(path.read_bytes), path.suffix.lstrip(".")
        request = emotion_service_pb2.AnalyzeAudioRequest(
            content=content, format_hint=hint, model=model, channel_mode=_config.channel_mode(channel_mode)
        )
        if estimate_interval is not None:
            _wire.set_seconds(request.estimate_interval, estimate_interval, "estimate_interval")
        if voice_activity is not None:
            request.voice_activity.CopyFrom(_config.voice_activity_config(voice_activity))
        answer = emotion_service_pb2.AnalyzeAudioResponse
        return _wire.analysis(await ask(self._channels, "EmotionService/AnalyzeAudio", request, answer, timeout))

    async def models(self) -> list[Model]:
        """The models that the server has loaded, the default one first."""
        request, answer = emotion_service_pb2.ListModelsRequest(), emotion_service_pb2.ListModelsResponse
        got = await ask(self._channels, "EmotionService/ListModels", request, answer, self._timeout)
        return [_wire.model(model) for model in got.models]

    async def model(self, name: str | None = None) -> Model:
        """One model; the default one if no name is given.

        Raises:
            NotFound: There is none of that name.
        """
        request, answer = emotion_service_pb2.GetModelRequest(name=name), emotion_service_pb2.GetModelResponse
        got = await ask(self._channels, "EmotionService/GetModel", request, answer, self._timeout)
        return _wire.model(got.model)

    async def policies(self) -> list[Policy]:
        """The policies that a stream can name."""
        request, answer = emotion_service_pb2.ListPoliciesRequest(), emotion_service_pb2.ListPoliciesResponse
        got = await ask(self._channels, "EmotionService/ListPolicies", request, answer, self._timeout)
        return [_wire.policy(policy) for policy in got.policies]

    async def escalations(self, **wanted: Unpack[EscalationFilter]) -> AsyncGenerator[Escalation, None]:
        """Escalations, newest first; pages are asked for as they are needed.

        Args:
            wanted: Which ones, see `EscalationFilter`.
        """
        request = escalation_service_pb2.ListEscalationsRequest(filter=_filter.build(**wanted), page_size=_PAGE)
        answer = escalation_service_pb2.ListEscalationsResponse
        while True:
            page = await ask(self._channels, "EscalationService/ListEscalations", request, answer, self._timeout)
            for escalation in page.escalations:
                yield _wire.escalation(escalation)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def escalation(self, escalation_id: str) -> EscalationDetail:
        """One escalation and everything that happened to it.

        Raises:
            NotFound: There is none of that id.
        """
        request = escalation_service_pb2.GetEscalationRequest(id=escalation_id)
        answer = escalation_service_pb2.GetEscalationResponse
        got = await ask(self._channels, "EscalationService/GetEscalation", request, answer, self._timeout)
        return EscalationDetail(_wire.escalation(got.escalation), tuple(map(_wire.escalation_event, got.history)))

    async def acknowledge(self, escalation_id: str, actor: str, note: str = "") -> Acknowledgement:
        """Says that somebody has taken an escalation on. To say it again changes nothing.

        Args:
            escalation_id: Which one.
            actor: Who, for the audit trail, 1 to 255 bytes.
            note: What they say, at most 1,000 bytes.

        Raises:
            NotFound: There is none of that id.
        """
        request = escalation_service_pb2.AcknowledgeEscalationRequest(id=escalation_id, actor=actor, note=note)
        answer = escalation_service_pb2.AcknowledgeEscalationResponse
        got = await ask(self._channels, "EscalationService/AcknowledgeEscalation", request, answer, self._timeout)
        return Acknowledgement(_wire.escalation(got.escalation), got.already)

    def watch_escalations(
        self,
        *,
        cursor: str | None = None,
        from_start: bool = False,
        reconnect: Reconnect | None = Reconnect(),  # noqa: B008 (frozen)
        **wanted: Unpack[EscalationFilter],
    ) -> EscalationWatch:
        """Everything that happens to escalations, in order: `async for event in u.watch_escalations()`.

        Args:
            cursor: Begins behind this one, of an earlier watch; with what happens from now on if there is none.
            from_start: Begins with the oldest that is kept. Not together with `cursor`.
            reconnect: How it goes on when it breaks off; `None`: not at all.
            wanted: Which ones, see `EscalationFilter`.
        """
        request = escalation_service_pb2.WatchEscalationsRequest(
            filter=_filter.build(**wanted), cursor=cursor, from_start=from_start
        )
        return EscalationWatch(self._channels, request, reconnect)

    async def sessions(
        self, *, tenant: str | None = None, labels: Mapping[str, str] | None = None, ended: bool = False
    ) -> AsyncGenerator[Session, None]:
        """The live sessions of the replica that answers, newest first.

        Args:
            tenant: Of this tenant; of all that the caller sees, if not given.
            labels: With all of these labels, 32 at most.
            ended: Behind them those that have ended lately, the last to end first; the server keeps them for 15 minutes
                by default.
        """
        request = session_service_pb2.ListSessionsRequest(
            tenant=tenant, labels=labels, page_size=_PAGE, include_ended=ended
        )
        answer = session_service_pb2.ListSessionsResponse
        while True:
            page = await ask(self._channels, "SessionService/ListSessions", request, answer, self._timeout)
            for session in page.sessions:
                yield _wire.session(session)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def session(
        self, session_id: str, *, history: float | None = None, tenant: str | None = None
    ) -> SessionDetail:
        """One session, live or ended lately.

        Args:
            session_id: Its name.
            history: Seconds of its audio of which is wanted what was heard; the server keeps 5 minutes by default.
            tenant: Its tenant, where the caller sees more than one.

        Raises:
            NotFound: There is none of that name, or it has ended a while ago.
        """
        request = session_service_pb2.GetSessionRequest(id=session_id, tenant=tenant)
        if history is not None:
            _wire.set_seconds(request.history, history, "history")
        answer = session_service_pb2.GetSessionResponse
        got = await ask(self._channels, "SessionService/GetSession", request, answer, self._timeout)
        return SessionDetail(
            _wire.session(got.session),
            tuple(map(_wire.estimate, got.history.estimates)),
            tuple(map(_wire.utterance, got.history.utterances)),
        )

    async def watch_session(
        self, session_id: str, *, history: float | None = None, tenant: str | None = None
    ) -> AsyncGenerator[Session | Estimate | Utterance, None]:
        """What is heard in one session, as it is heard; ends when the session does, or goes on elsewhere.

        First comes the session as it stands, and again now and then. A watcher that is slow misses estimates.

        Args:
            session_id: Its name.
            history: Seconds of its audio of which is wanted first what was heard.
            tenant: Its tenant, where the caller sees more than one.

        Raises:
            NotFound: There is none of that name, or it has ended.
            Unavailable: The connection broke. Watch again.
        """
        request = session_service_pb2.WatchSessionRequest(id=session_id, tenant=tenant)
        if history is not None:
            _wire.set_seconds(request.history, history, "history")
        answers = follow(
            self._channels, "SessionService/WatchSession", request, session_service_pb2.WatchSessionResponse
        )
        async with aclosing(answers):
            async for answer in answers:
                match answer.WhichOneof("message"):
                    case "session":
                        yield _wire.session(answer.session)
                    case "estimate":
                        yield _wire.estimate(answer.estimate)
                    case "utterance":
                        yield _wire.utterance(answer.utterance)
                    case "ended":
                        return


async def _feed(source: Source, stream: Stream) -> None:
    """Sends all that a source has. What the source raises, the stream's reader gets."""
    try:
        async with aclosing(chunks(source)) as audio:
            async for chunk in audio:
                try:
                    await stream.send(chunk)
                except UndertoneError:
                    return  # The stream's end tells why.
        await stream.end()
    except Exception as error:
        stream.abort(error)
