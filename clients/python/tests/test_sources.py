"""Where audio comes from: every file and array arrives as its samples, in whole, whatever the chunks."""

from __future__ import annotations

import asyncio
import struct
import sys
import threading
import types
import wave

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server import DATA, HELLO, hello

from undertone import AudioFormat, Encoding, Estimate, Finished, InvalidRequest, TimedOut, Undertone, sources


async def collect(source: sources.Source) -> list[bytes]:
    return [chunk async for chunk in sources.chunks(source)]


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def fmt(tag: int, bits: int, channels: int = 1, rate: int = 16_000, more: bytes = b"") -> tuple[bytes, bytes]:
    frame = channels * bits // 8
    return b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits) + more


@given(st.binary(max_size=4_000), st.floats(0.001, 0.2), st.integers(1, 3))
def test_bytes_arrive_whole_in_chunks_of_whole_frames(data, chunk, channels):
    audio = AudioFormat(channels=channels)
    chunks = asyncio.run(collect(sources.from_bytes(data, audio, chunk=chunk)))
    assert b"".join(chunks) == data
    assert all(len(part) == audio.size(chunk) for part in chunks[:-1])
    assert audio.size(chunk) % audio.frame_bytes == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=3_000),
    st.sampled_from([(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (6, 8), (7, 8)]),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([(), ((b"LIST", b"odd"),), ((b"fact", bytes(4)), (b"bext", bytes(601)))]),
)
def test_a_wav_file_arrives_as_its_samples_however_it_is_coded(tmp_path, data, coded, channels, extensible, others):
    tag, bits = coded
    frame = channels * bits // 8
    data = data[: len(data) // frame * frame]
    if extensible:
        guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
        head = fmt(0xFFFE, bits, channels, more=struct.pack("<HHI", 22, bits, 0) + guid)
    else:
        head = fmt(tag, bits, channels)
    path = tmp_path / "a.wav"
    path.write_bytes(riff(*others[:1], head, *others[1:], (b"data", data), (b"LIST", b"behind")))
    source = sources.from_file(path, chunk=0.01)
    chunks = asyncio.run(collect(source))
    assert source.format.channels == channels
    got = b"".join(chunks)
    if tag != 1:
        assert got == data
        assert source.format.encoding in (Encoding.FLOAT32, Encoding.ALAW, Encoding.MULAW)
    else:
        assert source.format.encoding is Encoding.LINEAR16
        step = bits // 8
        raw = [data[at : at + step] for at in range(0, len(data), step)]
        wanted = [
            (part[0] - 128) << 8 if bits == 8 else int.from_bytes(part, "little", signed=True) >> (bits - 16)
            for part in raw
        ]
        assert list(struct.unpack(f"<{len(got) // 2}h", got)) == wanted
    assert all(len(part) == source.format.size(0.01) for part in chunks[:-1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda tail: b"RIFF\0\0\0\0WAVE" + tail)))
def test_no_bytes_do_anything_but_play_or_be_refused(tmp_path, data):
    path = tmp_path / "any.wav"
    path.write_bytes(data)
    try:
        asyncio.run(collect(sources.from_file(path)))
    except InvalidRequest as error:
        assert error.fields[0][0] == "path"


@given(st.binary(max_size=60), st.integers(0, 44), st.binary(min_size=1, max_size=4))
def test_a_damaged_header_is_played_or_refused(tail, at, damage):
    good = riff(fmt(1, 16), (b"data", tail))
    data = good[:at] + damage + good[at + len(damage) :]
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(data)
        file.flush()
        try:
            asyncio.run(collect(sources.from_file(file.name)))
        except InvalidRequest as error:
            assert "ffmpeg" in str(error)


async def test_a_file_arrives_as_the_standard_library_reads_it():
    with wave.open(str(HELLO)) as file:
        samples = file.readframes(file.getnframes())
    assert b"".join(await collect(sources.from_file(HELLO))) == samples == hello()


@pytest.mark.parametrize(
    ("name", "encoding", "rate", "channels"),
    [
        ("tone_8k_mulaw.wav", Encoding.MULAW, 8_000, 1),
        ("tone_8k_float_stereo.wav", Encoding.FLOAT32, 8_000, 2),
        ("tone_16k_mono.wav", Encoding.LINEAR16, 16_000, 1),
    ],
)
async def test_a_file_streamed_is_as_long_as_the_server_says_it_is(target, name, encoding, rate, channels):
    source = sources.from_file(DATA / name)
    assert (source.format.encoding, source.format.sample_rate, source.format.channels) == (encoding, rate, channels)
    async with Undertone(target) as u:
        events = [event async for event in u.stream(source)]
        assert events[-1].audio == (await u.analyze(DATA / name)).audio


@pytest.mark.parametrize("name", ["tone_24k.mp3", "tone_16k.flac", "tone_16k_adpcm.wav", "make_hello.sh"])
def test_what_is_no_wav_is_refused_with_what_to_do(name):
    with pytest.raises(InvalidRequest, match=name) as caught:
        sources.from_file(DATA / name)
    assert "analyze" in caught.value.remedy


def test_a_file_that_is_not_there_is_an_os_error():
    with pytest.raises(FileNotFoundError):
        sources.from_file("not there.wav")


async def test_a_source_of_a_file_can_be_streamed_twice():
    source = sources.from_file(HELLO)
    assert await collect(source) == await collect(source)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f4", "<f8"])
async def test_an_array_arrives_as_its_values(dtype):
    values = np.arange(-50, 50).reshape(50, 2).astype(dtype)
    source = sources.from_numpy(values, 8_000)
    assert source.format.channels == 2
    got = np.frombuffer(b"".join(await collect(source)), "<i2" if dtype[1] == "i" else "<f4")
    assert got.tolist() == values.ravel().tolist()


async def test_an_array_in_another_order_of_memory_arrives_by_samples():
    values = np.asfortranarray(np.arange(6, dtype="<i2").reshape(3, 2))
    assert b"".join(await collect(sources.from_numpy(values, 8_000))) == struct.pack("<6h", *range(6))


@pytest.mark.parametrize("array", [np.zeros(4, "i4"), np.zeros(4, "u1"), np.zeros((2, 2, 2), "f4")])
def test_an_array_that_is_no_audio_is_refused(array):
    with pytest.raises(InvalidRequest, match="samples"):
        sources.from_numpy(array, 16_000)


async def test_real_time_is_kept():
    loop = asyncio.get_running_loop()
    began = loop.time()
    times = [
        loop.time() - began async for _ in sources.chunks(sources.from_bytes(bytes(9_600), chunk=0.05, realtime=True))
    ]
    assert len(times) == 6
    assert all(time >= 0.05 * (n + 1) - 0.002 for n, time in enumerate(times))


async def test_what_a_plain_source_does_blocks_nobody():
    gate = threading.Event()

    def blocking():
        yield b"first"
        assert gate.wait(10)
        yield b"second"

    chunks = sources.chunks(sources.from_iterable(blocking(), AudioFormat()))
    assert await anext(chunks) == b"first"
    waiting = asyncio.create_task(anext(chunks))
    await asyncio.sleep(0)
    gate.set()
    assert await waiting == b"second"


async def test_what_a_source_raises_its_listener_gets(target):
    async def broken():
        yield bytes(3_200)
        raise OSError("the cable is out")

    async with Undertone(target) as u:
        with pytest.raises(OSError, match="the cable is out"):
            async for _ in u.stream(sources.from_iterable(broken(), AudioFormat())):
                pass


async def test_who_stops_listening_lets_the_source_go(target):
    closed = asyncio.Event()

    async def endless():
        try:
            while True:
                yield hello()
        finally:
            closed.set()

    async with Undertone(target) as u:
        async for event in u.stream(sources.from_iterable(endless(), AudioFormat())):
            if isinstance(event, Estimate):
                break
        await asyncio.wait_for(closed.wait(), 10)


class FakeRecording:
    """What sounddevice gives, with a voice of ours."""

    opened: list[FakeRecording] = []

    def __init__(self, **settings) -> None:
        self.settings = settings
        self.running = False
        self.opened.append(self)

    def __enter__(self):
        self.running = True
        return self

    def __exit__(self, *_):
        self.running = False

    def hear(self, data: bytes) -> None:
        """As from a thread of PortAudio's."""
        thread = threading.Thread(target=self.settings["callback"], args=(memoryview(data), len(data) // 2, None, None))
        thread.start()
        thread.join()


@pytest.fixture
def sounddevice(monkeypatch):
    FakeRecording.opened = []
    module = types.ModuleType("sounddevice")
    module.RawInputStream = FakeRecording
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    monkeypatch.delitem(sys.modules, "undertone._microphone", raising=False)
    return FakeRecording


async def test_a_microphone_is_streamed_until_nobody_listens(sounddevice, target):
    async with Undertone(target) as u:
        microphone = sources.microphone(16_000, device="headset", chunk=0.1)
        estimates = 0
        async for event in u.stream(microphone):
            if not sounddevice.opened:
                while not sounddevice.opened or not sounddevice.opened[0].running:
                    await asyncio.sleep(0)
                for first in range(0, len(hello()), 3_200):
                    sounddevice.opened[0].hear(hello()[first : first + 3_200])
            estimates += isinstance(event, Estimate)
            if estimates == 10:
                break
    [recording] = sounddevice.opened
    assert not recording.running
    settings = {key: value for key, value in recording.settings.items() if key != "callback"}
    assert settings == {"samplerate": 16_000, "blocksize": 1_600, "device": "headset", "channels": 1, "dtype": "int16"}


async def test_a_microphone_that_nobody_reads_says_so_after_what_it_heard(sounddevice):
    chunks = sources.chunks(sources.microphone(chunk=0.1, buffer=0.3))
    first = asyncio.create_task(anext(chunks))
    while not sounddevice.opened:
        await asyncio.sleep(0)
    for n in range(6):
        sounddevice.opened[0].hear(bytes([n, 0]))
    heard = [await first]
    with pytest.raises(TimedOut, match="buffer="):
        while True:
            heard.append(await anext(chunks))
    assert [part[0] for part in heard] == list(range(len(heard)))
    assert 3 <= len(heard) <= 4
    assert not sounddevice.opened[0].running


def test_without_its_extra_the_microphone_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.delitem(sys.modules, "undertone._microphone", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"undertone\[microphone\]"):
        sources.microphone()


def test_chunks_and_formats_that_last_no_time_are_refused():
    for chunk in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidRequest, match="chunk"):
            sources.from_bytes(b"", chunk=chunk)
    with pytest.raises(InvalidRequest, match="channels"):
        AudioFormat(channels=0)
    with pytest.raises(InvalidRequest, match="sample_rate"):
        AudioFormat(sample_rate=0)


async def test_an_empty_source_is_a_stream_too(target):
    async with Undertone(target) as u:
        events = [event async for event in u.stream(sources.from_bytes(b""))]
    assert isinstance(events[-1], Finished)
    assert events[-1].audio == 0.0
